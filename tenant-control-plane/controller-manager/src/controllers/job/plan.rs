//! Decides what to do next for one Job. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use component::EventType;
use component::workqueue::Requeue;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::end::{End, set_condition};
use super::outcome::{self, has_failed, is_leaving, replaces_only_failed};
use super::tally::{Tally, count, is_indexed};
use super::template::{index_of, pod_for};
use super::{Happening, has_finalizer, is_finished};
use crate::pods;

/// Most pods made in one pass, and most results noted in the status at a time.
const BURST: usize = 500;

/// What the decision rests on.
pub(super) struct World {
    /// Pods that the Job controls.
    pub pods: Vec<Arc<Pod>>,
    /// Uids of those that were dropped.
    pub dropped: HashSet<String>,
    pub now: Timestamp,
}

impl World {
    /// The pods whose ends say something about the Job.
    fn tried(&self) -> Vec<Arc<Pod>> {
        let dropped =
            |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|u| self.dropped.contains(u));
        self.pods.iter().filter(|pod| !dropped(pod)).cloned().collect()
    }
}

/// What to do, in this order: drop, delete, create, write the status, release.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods that are not wanted now: they are let go and deleted, and count for nothing.
    pub drop: Vec<Arc<Pod>>,
    /// Pods that end with their Job.
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<Pod>,
    /// All but the active pods, see [`Plan::status_with`].
    pub status: JobStatus,
    /// Pods that stay active.
    pub running: usize,
    pub events: Vec<Happening>,
    pub release: Vec<Arc<Pod>>,
    pub requeue: Requeue,
}

impl Plan {
    /// The status once so many of the pods to create are there.
    pub(super) fn status_with(&self, made: usize) -> JobStatus {
        let active = Some(count(self.running + made)).filter(|active| *active > 0);
        JobStatus { active, ..self.status.clone() }
    }
}

/// See the module documentation.
pub(super) fn plan(job: &Job, world: &World) -> Plan {
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    plan.running = world.pods.iter().filter(|pod| pods::is_active(pod)).count();
    let Some(spec) = &job.spec else { return plan };
    if is_finished(job) {
        plan.release = world.pods.iter().filter(|pod| has_finalizer(pod)).cloned().collect();
        return plan;
    }
    let suspended = spec.suspend == Some(true);
    if !suspended && plan.status.start_time.is_none() {
        plan.status.start_time = Some(Time(world.now));
    }
    let mut tally = Tally::new(job, spec, &world.pods);
    let end = End::of(job, spec, &plan.status, &world.pods, &tally, world.now);
    let held = tally.awaiting_replacement(spec, &world.pods);
    let is_over = |pod: &&Arc<Pod>| {
        let held = index_of(pod).and_then(|index| held.get(&index));
        let has_failed = has_failed(pod, spec) && !held.is_some_and(|held| is(held, pod));
        has_finalizer(pod) && (end.is_some() || pods::phase(pod) == "Succeeded" || has_failed)
    };
    let mut over = world.pods.iter().filter(is_over);
    for pod in over.by_ref().take(BURST) {
        tally.note(spec, pod, end.as_ref().is_some_and(|end| !end.success));
        plan.release.push(pod.clone());
    }
    // The release of these brings the Job back for the others.
    let all_noted = over.next().is_none();
    let mut running: Vec<_> =
        world.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let leaving: Vec<_> = world.pods.iter().filter(|pod| is_leaving(pod)).cloned().collect();
    match end {
        Some(end) => {
            plan.delete.append(&mut running);
            let still = leaving.is_empty() && plan.delete.is_empty();
            let quiet = all_noted && tally.is_settled() && still;
            plan.events.extend(end.show(&mut plan.status, quiet, world.now));
        }
        None if suspended => {
            plan.drop.append(&mut running);
            note_suspension(&mut plan, true, world.now);
        }
        None => {
            note_suspension(&mut plan, false, world.now);
            let wants = Wants { spec, tally: &tally, leaving: &leaving, held: &held };
            wants.fill(job, &mut running, world, &mut plan);
            deadline(spec, &mut plan, world.now);
        }
    }
    tally.show(spec, &mut plan.status);
    let status = &mut plan.status;
    let ready = running.iter().filter(|pod| pods::is_ready(pod)).count();
    status.ready = Some(count(ready));
    plan.running = running.len();
    status.terminating = Some(count(leaving.len() + plan.delete.len() + plan.drop.len()));
    plan
}

fn is(one: &Pod, other: &Pod) -> bool {
    one.metadata.uid == other.metadata.uid
}

fn note_suspension(plan: &mut Plan, suspended: bool, now: Timestamp) {
    let (state, reason, message) = match suspended {
        true => ("True", "JobSuspended", "Job suspended"),
        false => ("False", "JobResumed", "Job resumed"),
    };
    if !set_condition(&mut plan.status, "Suspended", state, reason, message, now) {
        return;
    }
    if !suspended {
        // The deadline counts the time since the Job was resumed.
        plan.status.start_time = Some(Time(now));
    }
    let event = if suspended { "Suspended" } else { "Resumed" };
    plan.events.push((EventType::Normal, event.to_owned(), message.to_owned()));
}

/// What a running Job needs to know to have the right number of pods.
struct Wants<'a> {
    spec: &'a JobSpec,
    tally: &'a Tally,
    /// Pods that are being deleted.
    leaving: &'a [Arc<Pod>],
    /// Failed pods that are to be replaced, by index.
    held: &'a BTreeMap<i32, Arc<Pod>>,
}

impl Wants<'_> {
    /// How many pods should run now.
    fn active(&self, running: usize) -> usize {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min(completions - self.tally.succeeded),
            // Without a number of completions, the first success ends the making of pods.
            None if self.tally.succeeded > 0 => parallelism.min(count(running)),
            None => parallelism,
        };
        usize::try_from(wanted).unwrap_or_default()
    }

    fn is_open(&self, index: i32) -> bool {
        let failed = self.tally.failed_indexes.as_ref();
        (0..self.spec.completions.unwrap_or_default()).contains(&index)
            && !self.tally.completed.contains(index)
            && failed.is_none_or(|failed| !failed.contains(index))
    }

    /// Makes or stops pods until as many run as should.
    fn fill(&self, job: &Job, running: &mut Vec<Arc<Pod>>, world: &World, plan: &mut Plan) {
        if is_indexed(self.spec) {
            let mut seen = BTreeSet::new();
            // Doubles, finished indexes and those beyond the end stop.
            let (keep, stop): (Vec<_>, Vec<_>) =
                std::mem::take(running).into_iter().partition(|pod| {
                    index_of(pod).is_some_and(|index| self.is_open(index) && seen.insert(index))
                });
            *running = keep;
            plan.drop.extend(stop);
        }
        let wanted = self.active(running.len());
        if running.len() > wanted {
            running.sort_by_key(|pod| (pods::is_ready(pod), pods::phase(pod) == "Running"));
            plan.drop.extend(running.drain(..running.len() - wanted));
            return;
        }
        let replace_late = replaces_only_failed(self.spec);
        let occupied = running.len() + if replace_late { self.leaving.len() } else { 0 };
        let missing = wanted.saturating_sub(occupied).min(BURST);
        if missing == 0 {
            return;
        }
        if self.tally.failed_indexes.is_none()
            && let Some(wait) = outcome::backoff(&world.tried(), self.spec, world.now)
        {
            plan.requeue = Some(wait);
            return;
        }
        if !is_indexed(self.spec) {
            plan.create = (0..missing).map(|_| pod_for(job, None, None)).collect();
            return;
        }
        let late = self.leaving.iter().filter(|_| replace_late);
        let busy: BTreeSet<_> =
            running.iter().chain(late).filter_map(|pod| index_of(pod)).collect();
        let open = (0..self.spec.completions.unwrap_or_default())
            .filter(|index| self.is_open(*index) && !busy.contains(index));
        for index in open.take(missing) {
            let before = self.held.get(&index).map(Arc::as_ref);
            match before.and_then(|pod| outcome::index_backoff(pod, world.now)) {
                Some(wait) => {
                    plan.requeue = Some(plan.requeue.map_or(wait, |other| other.min(wait)));
                }
                None => plan.create.push(pod_for(job, Some(index), before)),
            }
        }
    }
}

fn deadline(spec: &JobSpec, plan: &mut Plan, now: Timestamp) {
    let Some(seconds) = spec.active_deadline_seconds else { return };
    let Some(start) = &plan.status.start_time else { return };
    let left = seconds.saturating_sub(now.as_second().saturating_sub(start.0.as_second()));
    let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let left = left.saturating_add(Duration::from_millis(100));
    plan.requeue = Some(plan.requeue.map_or(left, |other| other.min(left)));
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
