//! The two strategies: how sizes move from the old ReplicaSets to the newest.

use std::collections::HashSet;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Rollout, available, set_size, size};

/// A count or a percentage of `total`, rounded as asked.
pub(super) fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let exact = percent * i64::from(total);
            let rounded = if round_up { (exact + 99) / 100 } else { exact / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

fn fenceposts(rollout: &Rollout<'_>) -> (i32, i32) {
    let rolling = rollout.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling.map_or(Some(&quarter), |r| r.max_surge.as_ref());
    let unavailable = rolling.map_or(Some(&quarter), |r| r.max_unavailable.as_ref());
    let surge = resolve(surge, rollout.replicas(), true);
    let unavailable = resolve(unavailable, rollout.replicas(), false);
    // Percentages of a small number may both round to zero: then nothing could ever move.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods there may be above `spec.replicas`.
pub(super) fn surge(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() { 0 } else { fenceposts(rollout).0 }
}

/// How many of `spec.replicas` may be unavailable.
pub(super) fn max_unavailable(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() || rollout.replicas() == 0 {
        return 0;
    }
    fenceposts(rollout).1.min(rollout.replicas())
}

/// The size that the newest ReplicaSet may have now.
pub(super) fn newest_size(rollout: &Rollout<'_>) -> i32 {
    if rollout.is_recreate() {
        return rollout.replicas();
    }
    let now = rollout.newest.as_ref().map_or(0, size);
    let room = rollout.replicas() + surge(rollout) - rollout.total();
    if room <= 0 {
        return now;
    }
    now + room.min(rollout.replicas() - now).max(0)
}

/// Old pods go first; only when none is left does the newest ReplicaSet grow.
pub(super) fn recreate(rollout: &mut Rollout<'_>, with_pods: &HashSet<String>) {
    let busy = rollout.old.iter().any(|set| size(set) > 0);
    if busy {
        for set in &mut rollout.old {
            set_size(set, 0);
        }
        return;
    }
    let old_pods = rollout
        .old
        .iter()
        .any(|set| set.metadata.uid.as_ref().is_some_and(|uid| with_pods.contains(uid)));
    let replicas = rollout.replicas();
    if !old_pods && let Some(newest) = &mut rollout.newest {
        set_size(newest, replicas);
    }
}

/// One step: the newest grows as far as the surge allows, or else the old ones shrink as far as
/// availability allows.
pub(super) fn rolling_update(rollout: &mut Rollout<'_>) {
    let replicas = rollout.replicas();
    if let Some(newest) = &rollout.newest {
        let to = if size(newest) > replicas { replicas } else { newest_size(rollout) };
        if to != size(newest) {
            if let Some(newest) = &mut rollout.newest {
                set_size(newest, to);
            }
            return;
        }
        shrink_old(rollout);
    }
}

fn shrink_old(rollout: &mut Rollout<'_>) {
    if rollout.old.iter().map(size).sum::<i32>() == 0 {
        return;
    }
    let min_available = rollout.replicas() - max_unavailable(rollout);
    let newest_missing = rollout.newest.as_ref().map_or(0, |set| size(set) - available(set));
    let budget = rollout.total() - min_available - newest_missing;
    if budget <= 0 {
        return;
    }
    // Pods that do not serve anyway go first.
    let mut left = budget;
    for set in &mut rollout.old {
        let unhealthy = (size(set) - available(set)).clamp(0, left);
        left -= unhealthy;
        let to = size(set) - unhealthy;
        set_size(set, to);
    }
    let serving: i32 = rollout.all().map(available).sum();
    let mut left = serving - min_available;
    for set in &mut rollout.old {
        let surplus = size(set).min(left).max(0);
        left -= surplus;
        let to = size(set) - surplus;
        set_size(set, to);
    }
}

/// The ReplicaSets that have pods.
pub(super) fn active(sets: &[ReplicaSet]) -> impl Iterator<Item = &ReplicaSet> {
    sets.iter().filter(|set| size(set) > 0)
}
