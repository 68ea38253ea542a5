//! What room on a node means for a pod that waits. Pure.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::{Cluster, NodeInfo};
use crate::cycle::{admits, filters};
use crate::plugins::resources_fit::has_room;
use crate::pod::PodInfo;
use crate::preemption;

/// Uids of pods that may have a use for the room.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// They fit on the node now, all of them together.
    pub fit: Vec<String>,
    /// Another look may find something, for example other pods to make leave.
    pub perhaps: Vec<String>,
}

/// What room on the node means for pods that wait, each with the time when it first came: the most
/// important and then the oldest is served first, as in the queue.
pub fn judge<'a>(
    waiting: impl Iterator<Item = (Instant, &'a Arc<PodInfo>)>,
    cluster: &Cluster,
    name: &str,
    now: Instant,
) -> Woken {
    let mut woken = Woken::default();
    let Some(node) = cluster.node(name) else { return woken };
    // The other checks cost more, and few pods come this far.
    let (mut roomy, tight): (Vec<_>, Vec<_>) = waiting.partition(|(_, pod)| has_room(pod, node));
    roomy.sort_by_key(|(since, pod)| (Reverse(pod.priority), *since));
    let mut without: Vec<_> = tight.into_iter().map(|(_, pod)| pod).collect();
    if !roomy.is_empty() {
        let mut filled = node.clone();
        for (_, pod) in roomy {
            let fits = has_room(pod, &filled)
                && admits(&filters(pod, cluster), pod, cluster, &filled).is_ok();
            if fits {
                filled.add_pod(pod.clone());
                woken.fit.push(pod.uid.clone());
            } else {
                without.push(pod);
            }
        }
    }
    without.retain(|pod| may_preempt(pod, cluster, node, now));
    woken.perhaps.extend(without.into_iter().map(|pod| pod.uid.clone()));
    woken
}

fn may_preempt(pod: &PodInfo, cluster: &Cluster, node: &NodeInfo, now: Instant) -> bool {
    match cluster.nominated_node(&pod.uid) {
        Some(nominated) => nominated == node.name && !cluster.is_making_room(pod, now),
        None => {
            preemption::is_allowed(pod)
                && node.pods.values().any(|other| other.priority < pod.priority)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{cluster, node, pod};

    fn asking(name: &str, priority: i32, cpu: &str) -> std::sync::Arc<PodInfo> {
        pod(
            name,
            json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}),
        )
    }

    #[test]
    fn a_pod_is_woken_when_the_last_victim_has_left_and_not_before() {
        let now = Instant::now();
        let mut cluster = cluster(&[node("w1", json!({})), node("w2", json!({}))]);
        let (urgent, other) = (asking("urgent", 9, "4"), asking("other", 9, "4"));
        for name in ["a", "b"] {
            cluster.put_pod(asking(name, 0, "2"), "w1");
        }
        cluster.put_pod(asking("c", 20, "2"), "w2");
        cluster.nominate(urgent.clone(), "w1", vec!["a".to_owned(), "b".to_owned()], now);
        let judged = |cluster: &Cluster, name: &str| {
            let waiting = [(now, &other), (now, &urgent)].into_iter();
            let Woken { fit, perhaps } = judge(waiting, cluster, name, now);
            (fit.join(" "), perhaps.join(" "))
        };
        let of = |fit: &str, perhaps: &str| (fit.to_owned(), perhaps.to_owned());
        cluster.remove_pod("a");
        assert_eq!(judged(&cluster, "w1"), of("", "other"), "it may preempt");
        cluster.remove_pod("b");
        assert_eq!(judged(&cluster, "w1"), of("urgent", ""), "for the other the room is taken");
        assert_eq!(judged(&cluster, "w2"), of("", ""), "a greater one is there");
        cluster.put_pod(asking("late", 50, "1"), "w1");
        assert_eq!(judged(&cluster, "w1"), of("", "urgent"), "it looks again");
        assert_eq!(judged(&cluster, "gone"), of("", ""));
    }

    #[test]
    fn as_many_are_woken_as_fit_the_most_important_and_then_the_oldest() {
        let now = Instant::now();
        let cluster = cluster(&[node("w1", json!({}))]);
        let pods = [("young", 0, 2), ("old", 0, 1), ("greater", 5, 3), ("small", 0, 3)];
        let pods = pods.map(|(name, priority, age)| {
            let cpu = if name == "greater" { "3" } else { "1" };
            (now - std::time::Duration::from_secs(age), asking(name, priority, cpu))
        });
        let woken = judge(pods.iter().map(|(since, pod)| (*since, pod)), &cluster, "w1", now);
        assert_eq!(woken, Woken { fit: vec!["greater".into(), "small".into()], perhaps: vec![] });
    }
}
