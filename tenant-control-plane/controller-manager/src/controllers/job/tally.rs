//! Counts a Job's results, each once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::has_finalizer;
use super::indexes::Indexes;
use super::outcome::{earlier_failures, finished_at, has_failed};
use super::policy::{Verdict, judge};
use super::template::index_of;
use crate::pods;

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// A number for the API.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn total(parts: [i32; 3]) -> i32 {
    parts.into_iter().fold(0, i32::saturating_add)
}

/// True when every pod of the Job stands for an index.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// What is counted, and what is noted and still to be counted.
#[derive(Debug)]
pub(super) struct Tally {
    uncounted: UncountedTerminatedPods,
    counted_succeeded: i32,
    counted_failed: i32,
    /// Succeeded indexes.
    pub(super) completed: Indexes,
    /// Indexes that have failed for good, where each has a limit of its own.
    pub(super) failed_indexes: Option<Indexes>,
    /// All successes, or succeeded indexes.
    pub(super) succeeded: i32,
    /// All failures that count.
    pub(super) failed: i32,
}

/// The index of a pod, if the Job has such an index; `Some(None)` when pods have none.
fn place(spec: &JobSpec, pod: &Pod) -> Option<Option<i32>> {
    if !is_indexed(spec) {
        return Some(None);
    }
    let valid = |index: &i32| (0..spec.completions.unwrap_or_default()).contains(index);
    index_of(pod).filter(valid).map(Some)
}

impl Tally {
    /// Moves results from "noted" to "counted" where the finalizer is gone, and adds up what is new.
    pub(super) fn new(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>]) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or_default();
        let set = |text: Option<&str>| Indexes::parse(text.unwrap_or_default(), completions);
        let per_index = spec.backoff_limit_per_index.is_some() && is_indexed(spec);
        let mut tally = Self {
            uncounted: status.uncounted_terminated_pods.unwrap_or_default(),
            counted_succeeded: status.succeeded.unwrap_or_default(),
            counted_failed: status.failed.unwrap_or_default(),
            completed: set(status.completed_indexes.as_deref()),
            failed_indexes: per_index.then(|| set(status.failed_indexes.as_deref())),
            succeeded: 0,
            failed: 0,
        };
        tally.settle(pods);
        let (mut succeeded, mut failed) = (0, 0);
        for pod in pods.iter().filter(|pod| has_finalizer(pod)) {
            let Some(index) = place(spec, pod) else { continue };
            if pods::phase(pod) == "Succeeded" {
                if let Some(index) = index {
                    tally.completed.insert(index);
                }
                succeeded += i32::from(!noted(&tally.uncounted.succeeded, pod));
            } else if has_failed(pod, spec) {
                let verdict = judge(spec, pod);
                failed += i32::from(verdict.counts() && !noted(&tally.uncounted.failed, pod));
                if let (Some(set), Some(index)) = (&mut tally.failed_indexes, index) {
                    let (earlier, _) = earlier_failures(pod);
                    let limit = spec.backoff_limit_per_index.unwrap_or_default();
                    let exhausted = verdict.counts() && earlier >= limit;
                    if verdict == Verdict::FailIndex || exhausted {
                        set.insert(index);
                    }
                }
            }
        }
        let of = |list: &Option<Vec<String>>| count(list.as_ref().map_or(0, Vec::len));
        tally.succeeded = match is_indexed(spec) {
            true => tally.completed.len(),
            false => total([tally.counted_succeeded, of(&tally.uncounted.succeeded), succeeded]),
        };
        tally.failed = total([tally.counted_failed, of(&tally.uncounted.failed), failed]);
        tally
    }

    fn settle(&mut self, pods: &[Arc<Pod>]) {
        let tracked: BTreeSet<_> =
            pods.iter().filter(|pod| has_finalizer(pod)).map(|pod| uid(pod)).collect();
        let settle = |list: &mut Option<Vec<String>>| {
            let noted = list.take().unwrap_or_default();
            let (left, done): (Vec<_>, Vec<_>) =
                noted.into_iter().partition(|uid| tracked.contains(uid));
            *list = (!left.is_empty()).then_some(left);
            count(done.len())
        };
        self.counted_succeeded += settle(&mut self.uncounted.succeeded);
        self.counted_failed += settle(&mut self.uncounted.failed);
    }

    /// The latest failed pod of each index that neither ended nor runs: it keeps its finalizer, and
    /// so the number of failures, until its replacement has taken that over.
    pub(super) fn awaiting_replacement(
        &self,
        spec: &JobSpec,
        pods: &[Arc<Pod>],
    ) -> BTreeMap<i32, Arc<Pod>> {
        let Some(failed_indexes) = &self.failed_indexes else { return BTreeMap::new() };
        let running: BTreeSet<_> = pods
            .iter()
            .filter(|pod| pods::is_active(pod))
            .filter_map(|pod| index_of(pod))
            .collect();
        let age = |pod: &Pod| {
            let (counted, ignored) = earlier_failures(pod);
            (counted + ignored, finished_at(pod))
        };
        let mut latest: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| has_finalizer(pod) && has_failed(pod, spec)) {
            let Some(Some(index)) = place(spec, pod) else { continue };
            let is_over = self.completed.contains(index) || failed_indexes.contains(index);
            let is_later = latest.get(&index).is_none_or(|known| age(known) <= age(pod));
            if !is_over && !running.contains(&index) && is_later {
                latest.insert(index, pod.clone());
            }
        }
        latest
    }

    /// Notes the result of a pod whose finalizer is about to go. With `lost`, a pod without a
    /// result has failed.
    pub(super) fn note(&mut self, spec: &JobSpec, pod: &Pod, lost: bool) {
        let Some(index) = place(spec, pod) else { return };
        if pods::phase(pod) == "Succeeded" {
            // An index counts once, however many of its pods succeed.
            if index.is_none() {
                put(&mut self.uncounted.succeeded, pod);
            }
        } else if (lost || has_failed(pod, spec)) && judge(spec, pod).counts() {
            put(&mut self.uncounted.failed, pod);
        }
    }

    /// True when nothing waits to be counted.
    pub(super) fn is_settled(&self) -> bool {
        self.uncounted.succeeded.is_none() && self.uncounted.failed.is_none()
    }

    /// Writes the counts into a status.
    pub(super) fn show(self, spec: &JobSpec, status: &mut JobStatus) {
        let succeeded = match is_indexed(spec) {
            true => self.completed.len(),
            false => self.counted_succeeded,
        };
        status.succeeded = Some(succeeded).filter(|n| *n > 0);
        status.failed = Some(self.counted_failed).filter(|n| *n > 0);
        let completed = self.completed.format();
        status.completed_indexes = Some(completed).filter(|text| !text.is_empty());
        status.failed_indexes = self.failed_indexes.as_ref().map(Indexes::format);
        status.uncounted_terminated_pods = Some(self.uncounted);
    }
}

fn noted(list: &Option<Vec<String>>, pod: &Pod) -> bool {
    list.iter().flatten().any(|noted| Some(noted) == pod.metadata.uid.as_ref())
}

fn put(list: &mut Option<Vec<String>>, pod: &Pod) {
    if !noted(list, pod) {
        list.get_or_insert_default().push(uid(pod));
    }
}
