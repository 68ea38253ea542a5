//! Whether and how a Job ends. Pure.

use std::sync::Arc;

use component::EventType;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Happening;
use super::outcome::has_failed;
use super::policy::{self, Verdict, judge};
use super::tally::{Tally, is_indexed};
use crate::pods;

/// How the Job ends, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) success: bool,
    reason: String,
    message: String,
}

impl End {
    fn failure(reason: &str, message: &str) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.to_owned() }
    }

    fn success(reason: &str, message: String) -> Self {
        Self { success: true, reason: reason.to_owned(), message }
    }

    /// What was decided before stays so.
    fn decided(status: &JobStatus) -> Option<Self> {
        let find = |kind: &str| {
            let mut all = status.conditions.iter().flatten();
            all.find(|condition| condition.type_ == kind && condition.status == "True").cloned()
        };
        let (success, found) = match find("SuccessCriteriaMet") {
            Some(found) => (true, found),
            None => (false, find("FailureTarget")?),
        };
        let (reason, message) =
            (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
        Some(Self { success, reason, message })
    }

    /// The first of the reasons to end that holds. `status` has the start time.
    pub(super) fn of(
        job: &Job,
        spec: &JobSpec,
        status: &JobStatus,
        all: &[Arc<Pod>],
        tally: &Tally,
        now: Timestamp,
    ) -> Option<Self> {
        Self::decided(&job.status.clone().unwrap_or_default())
            .or_else(|| forbidden_failure(spec, all))
            .or_else(|| limits(spec, status, all, tally, now))
            .or_else(|| index_limits(spec, tally))
            .or_else(|| {
                let met = policy::success(spec, &tally.completed).filter(|_| is_indexed(spec))?;
                Some(Self::success("SuccessPolicy", met))
            })
            .or_else(|| completed(spec, all, tally))
    }

    /// Says how the Job ends; that it *has* ended is said only when all its pods have, and are
    /// counted: when it is `quiet`.
    pub(super) fn show(
        self,
        status: &mut JobStatus,
        quiet: bool,
        now: Timestamp,
    ) -> Vec<Happening> {
        let (target, last) = match self.success {
            true => ("SuccessCriteriaMet", "Complete"),
            false => ("FailureTarget", "Failed"),
        };
        set_condition(status, target, "True", &self.reason, &self.message, now);
        if !quiet {
            return Vec::new();
        }
        set_condition(status, last, "True", &self.reason, &self.message, now);
        if self.success {
            status.completion_time = Some(Time(now));
            return vec![(EventType::Normal, "Completed".to_owned(), "Job completed".to_owned())];
        }
        vec![(EventType::Warning, self.reason, self.message)]
    }
}

fn forbidden_failure(spec: &JobSpec, all: &[Arc<Pod>]) -> Option<End> {
    let failed = all.iter().filter(|pod| has_failed(pod, spec));
    failed.into_iter().find_map(|pod| match judge(spec, pod) {
        Verdict::FailJob(message) => Some(End::failure("PodFailurePolicy", &message)),
        _ => None,
    })
}

fn limits(
    spec: &JobSpec,
    status: &JobStatus,
    all: &[Arc<Pod>],
    tally: &Tally,
    now: Timestamp,
) -> Option<End> {
    let limit = spec.backoff_limit.unwrap_or(6);
    if tally.failed > limit || restarted_too_often(spec, all, limit) {
        let message = "Job has reached the specified backoff limit";
        return Some(End::failure("BackoffLimitExceeded", message));
    }
    let late = spec.active_deadline_seconds.zip(status.start_time.as_ref()).is_some_and(
        |(seconds, start)| {
            spec.suspend != Some(true)
                && now.as_second().saturating_sub(start.0.as_second()) >= seconds
        },
    );
    let message = "Job was active longer than specified deadline";
    late.then(|| End::failure("DeadlineExceeded", message))
}

fn restarted_too_often(spec: &JobSpec, all: &[Arc<Pod>], limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let restarts = |pod: &Arc<Pod>| -> i32 {
        let status = pod.status.as_ref();
        let first = status.and_then(|status| status.init_container_statuses.as_ref());
        let main = status.and_then(|status| status.container_statuses.as_ref());
        let both = first.into_iter().flatten().chain(main.into_iter().flatten());
        both.fold(0, |sum, container| sum.saturating_add(container.restart_count))
    };
    let up = all.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let restarts = up.map(restarts).fold(0, i32::saturating_add);
    restarts > 0 && restarts >= limit
}

fn index_limits(spec: &JobSpec, tally: &Tally) -> Option<End> {
    let failed = tally.failed_indexes.as_ref()?.len();
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(End::failure("MaxFailedIndexesExceeded", message));
    }
    let over = failed.saturating_add(tally.completed.len()) >= spec.completions.unwrap_or_default();
    (failed > 0 && over).then(|| End::failure("FailedIndexes", "Job has failed indexes"))
}

fn completed(spec: &JobSpec, all: &[Arc<Pod>], tally: &Tally) -> Option<End> {
    let done = match spec.completions {
        Some(wanted) => tally.succeeded >= wanted,
        None => tally.succeeded > 0 && !all.iter().any(|pod| pods::is_active(pod)),
    };
    let message = "Reached expected number of succeeded pods";
    done.then(|| End::success("CompletionsReached", message.to_owned()))
}

/// Sets a condition; true when that changed it. One that does not hold and never did is left out.
pub(super) fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let condition = JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known)
            if known.status == state
                && known.reason == condition.reason
                && known.message == condition.message =>
        {
            false
        }
        Some(known) => {
            *known = condition;
            true
        }
        None if state == "False" => false,
        None => {
            conditions.push(condition);
            true
        }
    }
}
