//! Which pods of a DaemonSet to create and delete, and its status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component::workqueue::Requeue;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::placement::{Fit, fit, node_of};
use crate::pods;
use crate::revisions::HASH_LABEL;

/// What the decision rests on.
pub(super) struct World {
    pub nodes: Vec<Arc<Node>>,
    /// Pods that the set controls.
    pub pods: Vec<Arc<Pod>>,
    /// Hash of the present revision.
    pub hash: String,
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Names of the nodes to make a pod for.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// True when a failed pod is replaced: not too quickly.
    pub failed: bool,
    pub requeue: Requeue,
}

/// The revision of a pod.
pub(super) fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str)
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
}

fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut map: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = node_of(pod) {
            map.entry(node).or_default().push(pod);
        }
    }
    // The oldest stays when there are too many.
    for pods in map.values_mut() {
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    }
    map
}

fn resolve(value: Option<&IntOrString>, total: i32, default: i32) -> i32 {
    match value {
        None => default,
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            i32::try_from((percent * i64::from(total) + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

/// How many nodes may be without a serving pod during an update, and how many may have two.
fn budgets(set: &DaemonSet, desired: i32) -> (i32, i32) {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), desired, 0);
    let default = i32::from(surge == 0);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), desired, default);
    if surge == 0 && unavailable == 0 { (1, 0) } else { (unavailable, surge) }
}

fn is_on_delete(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

/// See the module documentation.
pub(super) fn plan(set: &DaemonSet, world: &World) -> Plan {
    let mut plan = Plan::default();
    let pods = by_node(&world.pods);
    let mut desired = 0;
    let mut settled = Vec::new();
    for node in &world.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let fit = fit(set, node);
        desired += i32::from(fit == Fit::Run);
        let here: Vec<Arc<Pod>> =
            pods.get(name).into_iter().flatten().map(|pod| Arc::clone(pod)).collect();
        let nothing_here = here.is_empty();
        let (_leaving, mut present): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|pod| is_deleting(pod));
        if fit == Fit::No {
            plan.delete.extend(present);
            continue;
        }
        for ended in present.extract_if(.., |pod| pods::is_finished(pod)) {
            plan.failed = true;
            plan.delete.push(ended);
        }
        if nothing_here && fit == Fit::Run {
            plan.create.push(name.to_owned());
        } else {
            settled.push((name, present));
        }
    }
    settled.retain(|(_, pods)| !pods.is_empty());
    plan.requeue = update(set, world, &mut plan, settled, desired);
    plan
}

fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Replaces pods of older revisions, within the budgets, and removes doubles.
fn update(
    set: &DaemonSet,
    world: &World,
    plan: &mut Plan,
    nodes: Vec<(&str, Vec<Arc<Pod>>)>,
    desired: i32,
) -> Requeue {
    let (unavailable, surge) = budgets(set, desired);
    let seconds = min_ready(set);
    let available = |pod: &Pod| pods::is_available(pod, seconds, world.now);
    let with_serving =
        nodes.iter().filter(|(_, pods)| pods.iter().any(|pod| available(pod))).count();
    let mut may_stop = unavailable - (desired - i32::try_from(with_serving).unwrap_or(i32::MAX));
    let mut may_surge = surge;
    let rolling = !is_on_delete(set);
    let mut soon: Requeue = None;
    for (name, mut pods) in nodes {
        let waits = pods.iter().filter_map(|pod| pods::available_in(pod, seconds, world.now));
        let wait = waits.filter(|wait| !wait.is_zero()).min();
        soon =
            [soon, wait.map(|wait| wait + Duration::from_millis(100))].into_iter().flatten().min();
        // Only the newest of the present revision, and one of the older ones, may stay.
        let new = pods.iter().position(|pod| hash_of(pod) == Some(&world.hash));
        let new = new.map(|index| pods.remove(index));
        let Some(old) = pods.first().cloned() else { continue };
        plan.delete.extend(pods.into_iter().skip(1));
        match new {
            // A surge: the old one goes when the new one serves. Otherwise the double goes now.
            Some(new) if surge > 0 && rolling && !available(&new) && available(&old) => {
                may_surge -= 1
            }
            Some(_) => plan.delete.push(old),
            None if !rolling => {}
            None if surge > 0 && available(&old) && may_surge <= 0 => {}
            None if surge > 0 && available(&old) => {
                may_surge -= 1;
                plan.create.push(name.to_owned());
            }
            // A pod that does not serve costs nothing to replace.
            None if !available(&old) => plan.delete.push(old),
            None if may_stop > 0 => {
                may_stop -= 1;
                plan.delete.push(old);
            }
            None => {}
        }
    }
    soon
}

/// The set's status.
pub(super) fn status(set: &DaemonSet, world: &World) -> DaemonSetStatus {
    let pods = by_node(&world.pods);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..Default::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in &world.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let here = pods.get(name).map(Vec::as_slice).unwrap_or_default();
        let live: Vec<_> = here.iter().filter(|pod| !is_deleting(pod)).collect();
        if fit(set, node) != Fit::Run {
            status.number_misscheduled += i32::from(!live.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i32::from(!live.is_empty());
        let of_now = |pod: &Pod| hash_of(pod) == Some(&world.hash);
        updated += i32::from(live.iter().any(|pod| of_now(pod)));
        status.number_ready += i32::from(live.iter().any(|pod| pods::is_ready(pod)));
        let serves = |pod: &Pod| pods::is_available(pod, min_ready(set), world.now);
        available += i32::from(live.iter().any(|pod| serves(pod)));
    }
    let tally = |n: i32| (n > 0).then_some(n);
    status.updated_number_scheduled = tally(updated);
    status.number_available = tally(available);
    status.number_unavailable = tally(status.desired_number_scheduled - available);
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::placement::pod_for;
    use super::*;

    fn set(spec: Value) -> DaemonSet {
        let mut value = json!({
            "metadata": {"name": "agent", "namespace": "ns", "uid": "ds", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": []}}}
        });
        value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, taint: Option<(&str, &str)>) -> Arc<Node> {
        let taints: Vec<_> =
            taint.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name, "labels": {}}, "spec": {"taints": taints}}),
            )
            .unwrap(),
        )
    }

    fn pod(set: &DaemonSet, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let mut pod = pod_for(set, node, hash);
        let ready = if ready { "True" } else { "False" };
        pod.metadata.name = Some(format!("{node}-{hash}"));
        pod.status = serde_json::from_value(json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
        .unwrap();
        Arc::new(pod)
    }

    fn world(nodes: Vec<Arc<Node>>, pods: Vec<Arc<Pod>>) -> World {
        World { nodes, pods, hash: "new".into(), now: Timestamp::now() }
    }

    fn deleted(plan: &Plan) -> Vec<String> {
        plan.delete.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn every_node_that_fits_gets_one_pod() {
        let set = set(json!({}));
        let nodes = || {
            vec![
                node("w1", None),
                node("w2", Some(("node.kubernetes.io/unreachable", "NoExecute"))),
                node("w3", Some(("dedicated", "NoSchedule"))),
                node("w4", Some(("gone", "NoExecute"))),
            ]
        };
        let first = plan(&set, &world(nodes(), vec![]));
        assert_eq!(first.create, ["w1", "w2"], "not-ready and unreachable nodes count");
        let pods = vec![
            pod(&set, "w1", "new", true),
            pod(&set, "w1", "double", true),
            pod(&set, "w3", "new", true),
            pod(&set, "w4", "new", true),
        ];
        let world = world(nodes(), pods);
        let second = plan(&set, &world);
        assert_eq!(second.create, ["w2"]);
        assert_eq!(deleted(&second), ["w4-new", "w1-double"]);
        let status = status(&set, &world);
        assert_eq!(status.desired_number_scheduled, 2);
        assert_eq!(status.current_number_scheduled, 1);
        assert_eq!(status.number_misscheduled, 2);
        assert_eq!(status.number_unavailable, Some(1));
    }

    #[test]
    fn an_update_stops_one_serving_pod_at_a_time() {
        let set = set(json!({}));
        let nodes: Vec<_> = ["w1", "w2", "w3"].map(|name| node(name, None)).into();
        let pods: Vec<_> = ["w1", "w2", "w3"].map(|name| pod(&set, name, "old", true)).into();
        assert_eq!(deleted(&plan(&set, &world(nodes.clone(), pods.clone()))), ["w1-old"]);
        let mut midway = pods.clone();
        midway[0] = pod(&set, "w1", "new", false);
        assert!(deleted(&plan(&set, &world(nodes.clone(), midway.clone()))).is_empty());
        midway[0] = pod(&set, "w1", "new", true);
        midway[1] = pod(&set, "w2", "old", false);
        assert_eq!(deleted(&plan(&set, &world(nodes, midway))), ["w2-old"], "w3 must wait for w2");
    }

    #[test]
    fn with_a_surge_the_new_pod_serves_before_the_old_one_goes() {
        let set =
            set(json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}));
        let nodes: Vec<_> = ["w1", "w2"].map(|name| node(name, None)).into();
        let old: Vec<_> = ["w1", "w2"].map(|name| pod(&set, name, "old", true)).into();
        let first = plan(&set, &world(nodes.clone(), old.clone()));
        assert_eq!(first.create, ["w1"]);
        assert!(first.delete.is_empty());
        let mut pods = old;
        pods.push(pod(&set, "w1", "new", false));
        let waiting = plan(&set, &world(nodes.clone(), pods.clone()));
        assert!(waiting.create.is_empty() && waiting.delete.is_empty());
        pods[2] = pod(&set, "w1", "new", true);
        let second = plan(&set, &world(nodes, pods));
        assert_eq!(deleted(&second), ["w1-old"]);
        assert_eq!(second.create, ["w2"]);
    }

    #[test]
    fn on_delete_leaves_old_pods_alone() {
        let set = set(json!({"updateStrategy": {"type": "OnDelete"}}));
        let world = world(vec![node("w1", None)], vec![pod(&set, "w1", "old", true)]);
        assert!(plan(&set, &world).delete.is_empty());
    }
}
