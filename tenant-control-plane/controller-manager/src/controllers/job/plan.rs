//! Decides what to do next for one Job. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use component::EventType;
use component::workqueue::Requeue;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::template::{index_of, pod_for};
use super::{Happening, has_finalizer, indexes, is_finished};
use crate::pods;

/// Pause before the replacement of the first failed pod; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Most pods made in one pass.
const BURST: usize = 500;

/// What the decision rests on.
pub(super) struct World {
    /// Pods that the Job controls.
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

/// What to do, in this order: delete, write the status, release, create.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub delete: Vec<Arc<Pod>>,
    pub status: JobStatus,
    pub events: Vec<Happening>,
    pub release: Vec<Arc<Pod>>,
    pub create: Vec<Pod>,
    pub requeue: Requeue,
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// A pod's result: `Some(true)` for success. A pod that was deleted before it ended has failed, once
/// it is certain that it will not run on.
fn result(pod: &Pod) -> Option<bool> {
    match pods::phase(pod) {
        "Succeeded" => Some(true),
        "Failed" => Some(false),
        _ if is_deleting(pod) && pod.metadata.deletion_grace_period_seconds == Some(0) => {
            Some(false)
        }
        _ => None,
    }
}

struct Tally {
    uncounted: UncountedTerminatedPods,
    succeeded: i32,
    failed: i32,
    completed: BTreeSet<i32>,
}

/// Moves results from "noted" to "counted" where the finalizer is gone, and notes new results.
fn tally(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], release: &mut Vec<Arc<Pod>>) -> Tally {
    let status = job.status.clone().unwrap_or_default();
    let mut tally = Tally {
        uncounted: status.uncounted_terminated_pods.unwrap_or_default(),
        succeeded: status.succeeded.unwrap_or_default(),
        failed: status.failed.unwrap_or_default(),
        completed: indexes::parse(status.completed_indexes.as_deref().unwrap_or_default()),
    };
    let tracked: BTreeSet<_> = pods.iter().filter(|p| has_finalizer(p)).map(|p| uid(p)).collect();
    let settle = |list: &mut Option<Vec<String>>| {
        let noted = list.take().unwrap_or_default();
        let (left, done): (Vec<_>, Vec<_>) =
            noted.into_iter().partition(|uid| tracked.contains(uid));
        *list = (!left.is_empty()).then_some(left);
        count(done.len())
    };
    tally.succeeded += settle(&mut tally.uncounted.succeeded);
    tally.failed += settle(&mut tally.uncounted.failed);
    for pod in pods.iter().filter(|pod| has_finalizer(pod)) {
        let Some(success) = result(pod) else { continue };
        release.push(pod.clone());
        if success && is_indexed(spec) {
            // An index counts once, however many of its pods succeed.
            if let Some(index) = index_of(pod)
                && index < spec.completions.unwrap_or_default()
            {
                tally.completed.insert(index);
            }
            continue;
        }
        let list =
            if success { &mut tally.uncounted.succeeded } else { &mut tally.uncounted.failed };
        let list = list.get_or_insert_default();
        if !list.contains(&uid(pod)) {
            list.push(uid(pod));
        }
    }
    if is_indexed(spec) {
        tally.succeeded = count(tally.completed.len());
    }
    tally
}

fn noted(list: Option<&Vec<String>>) -> i32 {
    count(list.map_or(0, Vec::len))
}

/// Why the Job ends.
#[derive(Debug, PartialEq)]
enum End {
    Success,
    Failure { reason: &'static str, message: &'static str },
}

/// See the module documentation.
pub(super) fn plan(job: &Job, world: &World) -> Plan {
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    let Some(spec) = &job.spec else { return plan };
    if is_finished(job) {
        plan.release = world.pods.iter().filter(|pod| has_finalizer(pod)).cloned().collect();
        return plan;
    }
    let suspended = spec.suspend == Some(true);
    let status = &mut plan.status;
    if !suspended && status.start_time.is_none() {
        status.start_time = Some(Time(world.now));
    }
    let tally = tally(job, spec, &world.pods, &mut plan.release);
    let succeeded = tally.succeeded
        + if is_indexed(spec) { 0 } else { noted(tally.uncounted.succeeded.as_ref()) };
    let failed = tally.failed + noted(tally.uncounted.failed.as_ref());
    let live = |pod: &&Arc<Pod>| result(pod).is_none() && !pods::is_finished(pod);
    let (leaving, active): (Vec<_>, Vec<_>) =
        world.pods.iter().filter(live).cloned().partition(|pod| is_deleting(pod));
    let end = end_of(job, spec, status, &active, (succeeded, failed), world.now);

    status.succeeded = Some(tally.succeeded).filter(|n| *n > 0);
    status.failed = Some(tally.failed).filter(|n| *n > 0);
    status.completed_indexes =
        is_indexed(spec).then(|| indexes::format(&tally.completed)).filter(|text| !text.is_empty());
    let settled = tally.uncounted.succeeded.is_none() && tally.uncounted.failed.is_none();
    status.uncounted_terminated_pods = Some(tally.uncounted);

    let mut running = active.clone();
    match end {
        Some(end) => {
            running.clear();
            plan.delete.extend(active);
            finish(&mut plan, end, settled && plan_is_quiet(&leaving, world), world.now);
        }
        None if suspended => {
            running.clear();
            plan.delete.extend(active);
            note_suspension(&mut plan, true, world.now);
        }
        None => {
            note_suspension(&mut plan, false, world.now);
            let wants = Wants { spec, succeeded, failed, completed: &tally.completed };
            fill(job, &wants, &mut running, &leaving, world, &mut plan);
            deadline(spec, &mut plan, world.now);
        }
    }
    let status = &mut plan.status;
    let ready = running.iter().filter(|pod| pods::is_ready(pod)).count();
    let terminating = leaving.len() + plan.delete.len();
    status.active = Some(count(running.len() + plan.create.len())).filter(|n| *n > 0);
    status.ready = Some(count(ready));
    status.terminating = Some(count(terminating));
    plan
}

/// True when no pod of the Job runs or is still to be released.
fn plan_is_quiet(leaving: &[Arc<Pod>], world: &World) -> bool {
    leaving.is_empty()
        && world.pods.iter().all(|pod| pods::is_finished(pod) || result(pod).is_some())
}

fn end_of(
    job: &Job,
    spec: &JobSpec,
    status: &JobStatus,
    active: &[Arc<Pod>],
    (succeeded, failed): (i32, i32),
    now: Timestamp,
) -> Option<End> {
    if super::has_condition(job, "SuccessCriteriaMet") {
        return Some(End::Success);
    }
    let target = status.conditions.iter().flatten().find(|c| c.type_ == "FailureTarget");
    let target = target.and_then(|condition| condition.reason.as_deref());
    let limit = spec.backoff_limit.unwrap_or(6);
    let on_failure =
        spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure");
    let restarts: i32 = active.iter().map(|pod| total_restarts(pod)).sum();
    let too_many = failed > limit || (on_failure && restarts > 0 && restarts >= limit.max(1));
    let late = spec.active_deadline_seconds.zip(status.start_time.as_ref()).is_some_and(
        |(seconds, start)| {
            spec.suspend != Some(true) && now.as_second() - start.0.as_second() >= seconds
        },
    );
    if target == Some("BackoffLimitExceeded") || (target.is_none() && too_many) {
        return Some(End::Failure {
            reason: "BackoffLimitExceeded",
            message: "Job has reached the specified backoff limit",
        });
    }
    if target == Some("DeadlineExceeded") || late {
        return Some(End::Failure {
            reason: "DeadlineExceeded",
            message: "Job was active longer than specified deadline",
        });
    }
    let done = match spec.completions {
        Some(wanted) => succeeded >= wanted,
        None => succeeded > 0 && active.is_empty(),
    };
    done.then_some(End::Success)
}

fn total_restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|container| container.restart_count).sum()
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    state: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == kind && c.status == state) {
        return false;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    true
}

/// Says how the Job ends; that it *has* ended is said only when all its pods have, and are counted.
fn finish(plan: &mut Plan, end: End, quiet: bool, now: Timestamp) {
    let status = &mut plan.status;
    let quiet = quiet && plan.delete.is_empty();
    match end {
        End::Success => {
            let (reason, message) =
                ("CompletionsReached", "Reached expected number of succeeded pods");
            set_condition(status, "SuccessCriteriaMet", "True", reason, message, now);
            if quiet {
                set_condition(status, "Complete", "True", reason, message, now);
                status.completion_time = Some(Time(now));
                plan.events.push((EventType::Normal, "Completed", "Job completed".to_owned()));
            }
        }
        End::Failure { reason, message } => {
            set_condition(status, "FailureTarget", "True", reason, message, now);
            if quiet {
                set_condition(status, "Failed", "True", reason, message, now);
                plan.events.push((EventType::Warning, reason, message.to_owned()));
            }
        }
    }
}

fn note_suspension(plan: &mut Plan, suspended: bool, now: Timestamp) {
    let held = plan.status.conditions.iter().flatten().any(|c| c.type_ == "Suspended");
    if suspended {
        if set_condition(
            &mut plan.status,
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
            now,
        ) {
            plan.events.push((EventType::Normal, "Suspended", "Job suspended".to_owned()));
        }
        plan.status.start_time = None;
    } else if held
        && set_condition(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", now)
    {
        plan.status.start_time = Some(Time(now));
        plan.events.push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
    }
}

struct Wants<'a> {
    spec: &'a JobSpec,
    succeeded: i32,
    failed: i32,
    completed: &'a BTreeSet<i32>,
}

impl Wants<'_> {
    /// How many pods should run now.
    fn active(&self, running: usize) -> usize {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min(completions - self.succeeded),
            // Without a number of completions, the first success ends the making of pods.
            None if self.succeeded > 0 => parallelism.min(count(running)),
            None => parallelism,
        };
        usize::try_from(wanted).unwrap_or_default()
    }
}

/// Makes or stops pods until as many run as should.
fn fill(
    job: &Job,
    wants: &Wants<'_>,
    running: &mut Vec<Arc<Pod>>,
    leaving: &[Arc<Pod>],
    world: &World,
    plan: &mut Plan,
) {
    if is_indexed(wants.spec) {
        let mut seen = BTreeSet::new();
        let limit = wants.spec.completions.unwrap_or_default();
        // Doubles, finished indexes and those beyond the end stop.
        let (keep, stop): (Vec<_>, Vec<_>) = std::mem::take(running).into_iter().partition(|pod| {
            index_of(pod).is_some_and(|index| {
                index < limit && !wants.completed.contains(&index) && seen.insert(index)
            })
        });
        *running = keep;
        plan.delete.extend(stop);
    }
    let wanted = wants.active(running.len());
    if running.len() > wanted {
        running.sort_by_key(|pod| (pods::is_ready(pod), pods::phase(pod) == "Running"));
        plan.delete.extend(running.drain(..running.len() - wanted));
        return;
    }
    let replace_late = wants.spec.pod_replacement_policy.as_deref() == Some("Failed");
    let occupied = running.len() + if replace_late { leaving.len() } else { 0 };
    let missing = wanted.saturating_sub(occupied).min(BURST);
    if missing == 0 {
        return;
    }
    if let Some(wait) = backoff(wants.failed, world) {
        plan.requeue = Some(wait);
        return;
    }
    if is_indexed(wants.spec) {
        let busy: BTreeSet<_> = running
            .iter()
            .chain(leaving.iter().filter(|_| replace_late))
            .filter_map(|pod| index_of(pod))
            .collect();
        let free = (0..wants.spec.completions.unwrap_or_default())
            .filter(|index| !wants.completed.contains(index) && !busy.contains(index));
        plan.create = free.take(missing).map(|index| pod_for(job, Some(index))).collect();
    } else {
        plan.create = (0..missing).map(|_| pod_for(job, None)).collect();
    }
}

/// How long to wait after the latest failure, if that time is not over.
fn backoff(failed: i32, world: &World) -> Requeue {
    let ended = |pod: &&Arc<Pod>| result(pod) == Some(false);
    let latest = world.pods.iter().filter(ended).filter_map(|pod| failed_at(pod)).max()?;
    let doublings = u32::try_from(failed - 1).unwrap_or_default().min(10);
    let pause = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let passed = Duration::try_from(world.now.duration_since(latest)).unwrap_or_default();
    Some(pause.saturating_sub(passed)).filter(|wait| !wait.is_zero())
}

fn failed_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let ends = statuses.into_iter().flatten().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| time.0)
    });
    let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ends.max().or(deleted).or(pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn deadline(spec: &JobSpec, plan: &mut Plan, now: Timestamp) {
    let Some(seconds) = spec.active_deadline_seconds else { return };
    let Some(start) = &plan.status.start_time else { return };
    let left = start.0.as_second() + seconds - now.as_second();
    let left =
        Duration::from_secs(u64::try_from(left).unwrap_or_default()) + Duration::from_millis(100);
    plan.requeue = Some(plan.requeue.map_or(left, |other| other.min(left)));
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
