//! Names of the metrics that the scheduler records; rendered by [`component::metrics`].

/// Attempts, by `result`: `scheduled`, `unschedulable`, `error`.
pub const ATTEMPTS: &str = "scheduler_schedule_attempts_total";
/// Seconds that decisions took.
pub const DECISION: &str = "scheduler_scheduling_algorithm_duration_seconds";
/// Seconds from a pod's first appearance to its binding.
pub const UNTIL_BOUND: &str = "scheduler_pod_scheduling_sli_duration_seconds";
/// Waiting pods, by `queue`.
pub const PENDING: &str = "scheduler_pending_pods";
/// Pods evicted for others.
pub const VICTIMS: &str = "scheduler_preemption_victims";
