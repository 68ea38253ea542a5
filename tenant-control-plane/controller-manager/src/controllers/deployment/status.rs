//! A Deployment's status and conditions, from which `kubectl rollout status` reads progress.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::plan::{Change, Plan, Rollout, available};
use super::rollout::max_unavailable;

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition that is true or false since now.
pub(super) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A condition of the status.
pub(super) fn find<'a>(
    status: &'a DeploymentStatus,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition, unless the same status and reason are there already.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(old) = find(status, &new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    replace_condition(status, new);
}

fn replace_condition(status: &mut DeploymentStatus, new: DeploymentCondition) {
    remove_condition(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// `progressDeadlineSeconds`, unless it is off.
pub(super) fn deadline(spec: &DeploymentSpec) -> Option<Duration> {
    let seconds = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Notes in the Progressing condition that a rollout was paused or resumed, so that the time in
/// between does not count against the deadline.
pub(super) fn note_pause(rollout: &Rollout<'_>, status: &mut DeploymentStatus) {
    if deadline(rollout.spec).is_none() {
        return;
    }
    let reason = find(status, "Progressing").and_then(|c| c.reason.as_deref()).unwrap_or_default();
    let noted = reason == "DeploymentPaused";
    if reason == TIMED_OUT {
        return;
    }
    let (reason, message) = match (rollout.spec.paused == Some(true), noted) {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let new = condition("Progressing", "Unknown", reason, message.to_owned(), rollout.now);
    set_condition(status, new);
}

fn running(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map(|status| status.replicas).unwrap_or_default()
}

fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default()
}

/// Counts, and the Available condition.
pub(super) fn calculate(rollout: &Rollout<'_>, status: DeploymentStatus) -> DeploymentStatus {
    let tally = |n: i32| (n > 0).then_some(n);
    let serving: i32 = rollout.all().map(available).sum();
    let terminating = rollout
        .all()
        .filter_map(|set| set.status.as_ref().and_then(|status| status.terminating_replicas))
        .sum();
    let mut next = DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: tally(rollout.all().map(running).sum()),
        updated_replicas: tally(rollout.newest.as_ref().map_or(0, running)),
        ready_replicas: tally(rollout.all().map(ready).sum()),
        available_replicas: tally(serving),
        unavailable_replicas: tally(rollout.total() - serving),
        terminating_replicas: Some(terminating),
        collision_count: status.collision_count,
        conditions: status.conditions,
    };
    let enough = serving >= rollout.replicas() - max_unavailable(rollout);
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let new = condition("Available", status, reason, message.to_owned(), rollout.now);
    set_condition(&mut next, new);
    next
}

/// True when all replicas run the present template and serve, and nothing else runs.
pub(super) fn is_complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let wanted = rollout.replicas();
    let is = |count: Option<i32>| count.unwrap_or_default() == wanted;
    is(status.updated_replicas)
        && is(status.replicas)
        && is(status.available_replicas)
        && status.observed_generation >= rollout.deployment.metadata.generation
}

/// True when the counts moved in the right direction since the last status.
fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let updated = |s: &DeploymentStatus| s.updated_replicas.unwrap_or_default();
    let others = |s: &DeploymentStatus| s.replicas.unwrap_or_default() - updated(s);
    updated(new) > updated(old)
        || others(new) < others(old)
        || new.ready_replicas.unwrap_or_default() > old.ready_replicas.unwrap_or_default()
        || new.available_replicas.unwrap_or_default() > old.available_replicas.unwrap_or_default()
}

fn time_left(status: &DeploymentStatus, limit: Duration, now: Timestamp) -> Option<Duration> {
    let last = find(status, "Progressing")?.last_update_time.as_ref()?.0;
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    Some(limit.saturating_sub(passed))
}

/// The Progressing and ReplicaFailure conditions, and the next look for the deadline.
pub(super) fn progress(
    rollout: &Rollout<'_>,
    mut status: DeploymentStatus,
    plan: &mut Plan,
) -> DeploymentStatus {
    let failure = rollout.all().find_map(|set| {
        let conditions = set.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure").cloned()
    });
    match failure {
        Some(failure) => set_condition(
            &mut status,
            condition(
                "ReplicaFailure",
                &failure.status,
                &failure.reason.unwrap_or_default(),
                failure.message.unwrap_or_default(),
                rollout.now,
            ),
        ),
        None => remove_condition(&mut status, "ReplicaFailure"),
    }
    let Some(limit) = deadline(rollout.spec) else {
        remove_condition(&mut status, "Progressing");
        return status;
    };
    let current = find(&status, "Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
    if status.replicas == status.updated_replicas && reason == AVAILABLE {
        return status;
    }
    let subject = rollout.newest.as_ref().map_or_else(
        || format!("Deployment \"{}\"", rollout.deployment.name_any()),
        |set| format!("ReplicaSet \"{}\"", set.name_any()),
    );
    let old = rollout.deployment.status.clone().unwrap_or_default();
    if is_complete(rollout, &status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(
            &mut status,
            condition("Progressing", "True", AVAILABLE, message, rollout.now),
        );
    } else if has_progressed(&old, &status) {
        let message = format!("{subject} is progressing.");
        let mut new = condition("Progressing", "True", "ReplicaSetUpdated", message, rollout.now);
        if let Some(current) = current.filter(|current| current.status == "True") {
            new.last_transition_time = current.last_transition_time;
        }
        replace_condition(&mut status, new);
    } else if let Some(left) = time_left(&status, limit, rollout.now) {
        if reason == TIMED_OUT {
            return status;
        }
        if left.is_zero() {
            let message = format!("{subject} has timed out progressing.");
            set_condition(
                &mut status,
                condition("Progressing", "False", TIMED_OUT, message, rollout.now),
            );
        } else {
            plan.requeue = Some(left + Duration::from_secs(1));
        }
    }
    status
}

/// Plans the write if the status changed.
pub(super) fn finish(rollout: &Rollout<'_>, status: DeploymentStatus, plan: &mut Plan) {
    if rollout.deployment.status.as_ref() != Some(&status) {
        plan.changes.push(Change::Status(Box::new(status)));
    }
}
