//! Changing `spec.replicas`, possibly in the middle of a rollout.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::annotations::{self, DESIRED, MAX};
use super::plan::{Rollout, available, set_size, size};
use super::rollout::{active, surge};

/// True when `spec.replicas` changed since the ReplicaSets were last scaled.
pub(super) fn is_resized(rollout: &Rollout<'_>) -> bool {
    let mut active = rollout.all().filter(|set| size(set) > 0);
    active.any(|set| annotations::number(set, DESIRED).is_some_and(|n| n != rollout.replicas()))
}

/// Spreads the new size over the ReplicaSets: all of it on the only active one, or in proportion in
/// the middle of a rollout, so that scaling neither hastens the rollout nor undoes it.
pub(super) fn scale(rollout: &mut Rollout<'_>) {
    let replicas = rollout.replicas();
    if let Some(only) = only_active(rollout) {
        set_size(only, replicas);
        return;
    }
    let saturated = rollout.newest.as_ref().is_some_and(|set| {
        annotations::number(set, DESIRED) == Some(replicas)
            && size(set) == replicas
            && available(set) == replicas
    });
    if saturated {
        for set in &mut rollout.old {
            set_size(set, 0);
        }
    } else if !rollout.is_recreate() {
        proportional(rollout);
    }
}

fn only_active<'a>(rollout: &'a mut Rollout<'_>) -> Option<&'a mut ReplicaSet> {
    let newest_active = rollout.newest.as_ref().is_some_and(|set| size(set) > 0);
    match (active(&rollout.old).count(), newest_active) {
        (0, true) => rollout.newest.as_mut(),
        (0, false) if rollout.newest.is_some() => rollout.newest.as_mut(),
        (0, false) => rollout.old.last_mut(),
        (1, false) => rollout.old.iter_mut().find(|set| size(set) > 0),
        _ => None,
    }
}

fn proportional(rollout: &mut Rollout<'_>) {
    let replicas = rollout.replicas();
    let allowed = if replicas > 0 { replicas + surge(rollout) } else { 0 };
    let to_add = allowed - rollout.total();
    let max_now = replicas + surge(rollout);
    let status_replicas =
        rollout.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    let mut sets: Vec<&mut ReplicaSet> =
        rollout.old.iter_mut().chain(&mut rollout.newest).filter(|set| size(set) > 0).collect();
    if to_add > 0 {
        sets.sort_by_key(|set| {
            (Reverse(size(set)), Reverse(set.metadata.creation_timestamp.as_ref().map(|t| t.0)))
        });
    } else {
        sets.sort_by_key(|set| {
            (Reverse(size(set)), set.metadata.creation_timestamp.as_ref().map(|t| t.0))
        });
    }
    let mut added = 0;
    for set in &mut sets {
        let share = proportion(set, max_now, status_replicas);
        let left = to_add - added;
        let share = if to_add > 0 { share.min(left).max(0) } else { share.max(left).min(0) };
        let to = (size(set) + share).max(0);
        added += to - size(set);
        set_size(set, to);
    }
    // What rounding left over goes to the largest.
    if let Some(first) = sets.first_mut() {
        let to = (size(first) + to_add - added).max(0);
        set_size(first, to);
    }
}

/// By how much a ReplicaSet grows so that its share of the total stays what it was.
fn proportion(set: &ReplicaSet, max_now: i32, status_replicas: i32) -> i32 {
    let max_before = annotations::number(set, MAX).filter(|n| *n > 0).unwrap_or(status_replicas);
    if max_before == 0 {
        return 0;
    }
    let exact = f64::from(size(set)) * f64::from(max_now) / f64::from(max_before);
    // Sizes are far below the range of i32.
    #[allow(clippy::cast_possible_truncation)]
    let rounded = exact.round() as i32;
    rounded - size(set)
}
