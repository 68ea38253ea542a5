//! The planner: what is wanted and what is seen go in, the next actions come out.
//!
//! ```text
//! Intent (customers) ─┐
//!                     ├─► plan() ─► Vec<Action> ─► the controller executes each, idempotently
//! Observed (agents) ──┘
//! ```
//!
//! **Pure**: no clock, no randomness, no input or output; the same arguments give the same
//! actions. It is asked again after every change, so each pass plans only what can be done now.
//!
//! **Invariants** (audited in tests by a checker that shares no code with this crate)
//! - A cluster is placed completely or not at all; why not is its message.
//! - Nothing starts before what it needs: certificates, then etcd, then the API server, then its
//!   clients. What was started stays started.
//! - A host is never given more than it has; a port belongs to one member; an address to one node.
//! - Rows of a deleted cluster or node go only when no host has anything of it.
//! - A plan for a state in which everything is as wanted is empty.
//!
//! **Never**: waits, retries, or remembers anything between calls.
//!
//! **Next**: `provisioner-controller` executes the actions and tells the agents.

mod action;
mod control_plane;
mod model;
mod node_groups;
mod node_phase;
mod pod_networks;
mod room;
mod status;

pub use action::{Action, NewEvent, Severity};
pub use model::{
    ClusterIntent, ClusterSeen, DriverSeen, GroupIntent, HostSeen, Intent, MemberKind, MemberSeen,
    MemberState, NodePhase, NodeSeen, Observed, Size,
};
pub use node_phase::{NodeSight, WorkerSight, node_phase, phase_event};
pub use pod_networks::node_mask;
pub use status::{ClusterStatus, GroupStatus, Phase, Step, StepState};

use room::Room;

/// How long a joined node may be NotReady before it is replaced, ms.
pub const NOT_READY_GRACE_MS: i64 = 120_000;
/// How long a new worker may take to become a Ready node before it is replaced, ms. Emulated
/// machines take minutes.
pub const JOIN_GRACE_MS: i64 = 900_000;
/// A worker whose machine ended is replaced at once, but not sooner than this after it was made,
/// ms: one that cannot even boot must not be made again in a tight loop.
pub const EXITED_MIN_AGE_MS: i64 = 15_000;
/// Members' certificates are renewed when they end within this, ms.
pub const RENEW_CERTIFICATES_MS: i64 = 120 * 24 * 3_600_000;

/// What should be done next.
pub fn plan(intent: &Intent, observed: &Observed) -> Vec<Action> {
    let mut room = Room::new(intent, observed);
    let mut actions = Vec::new();
    let unseen = ClusterSeen::default();
    for cluster in &intent.clusters {
        let seen = observed.clusters.get(&cluster.id).unwrap_or(&unseen);
        if cluster.deleting {
            status::plan_deletion(cluster, seen, observed, &mut actions);
            continue;
        }
        let blocked = control_plane::plan(cluster, seen, observed, &mut room, &mut actions);
        status::plan_status(cluster, seen, observed, blocked, &mut actions);
        for group in &cluster.groups {
            node_groups::plan(cluster, group, seen, observed, &mut room, &mut actions);
        }
    }
    actions
}
