//! Turns changes in the shared caches into messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::informer::Informers;
use component::{Change, Object};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Message, Sender};
use crate::budget::Budget;
use crate::plugins::Events;

/// Registers for everything that the engine wants to know.
pub fn subscribe(informers: &Informers, sender: &Sender) {
    forward(informers, sender, |change: &Change<'_, Pod>| {
        Some(match change.new {
            Some(pod) => Message::Pod(pod.clone()),
            None => Message::PodGone(change.latest().clone()),
        })
    });
    forward(informers, sender, |change: &Change<'_, Node>| match change.new {
        Some(new) if !same_node(change.old, new) => {
            Some(Message::Node { old: change.old.cloned(), new: new.clone() })
        }
        Some(_) => None,
        None => Some(Message::NodeGone(name(change.latest().as_ref()))),
    });
    forward(informers, sender, |change: &Change<'_, Namespace>| {
        let labels = change.new.map(|n| n.metadata.labels.clone().unwrap_or_default());
        Some(Message::Namespace(name(change.latest().as_ref()), labels))
    });
    forward(informers, sender, |change: &Change<'_, Service>| {
        let selector = change.new.and_then(|service| service.spec.as_ref()?.selector.clone());
        let namespace = change.latest().metadata.namespace.clone().unwrap_or_default();
        Some(Message::Service(namespace, name(change.latest().as_ref()), selector))
    });
    forward(informers, sender, |change: &Change<'_, PodDisruptionBudget>| {
        let namespace = change.latest().metadata.namespace.clone().unwrap_or_default();
        let budget = change.new.map(|budget| Budget::of(budget));
        Some(Message::Budget(namespace, name(change.latest().as_ref()), budget))
    });
    forward(informers, sender, |change: &Change<'_, ReplicaSet>| {
        let selector = |set: &ReplicaSet| set.spec.as_ref().map(|spec| spec.selector.clone());
        workload(change, selector)
    });
    forward(informers, sender, |change: &Change<'_, StatefulSet>| {
        let selector = |set: &StatefulSet| set.spec.as_ref().map(|spec| spec.selector.clone());
        workload(change, selector)
    });
}

fn forward<K: Object>(
    informers: &Informers,
    sender: &Sender,
    convert: impl Fn(&Change<'_, K>) -> Option<Message> + Send + Sync + 'static,
) {
    let sender = sender.clone();
    informers.of::<K>().on_change(move |change| {
        if let Some(message) = convert(change) {
            // The engine is gone only when the process stops.
            let _ = sender.send(message);
        }
    });
}

fn name<K: Object>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn workload<K: Object>(
    change: &Change<'_, K>,
    selector: impl Fn(&K) -> Option<LabelSelector>,
) -> Option<Message> {
    let of = |object: Option<&Arc<K>>| object.and_then(|object| selector(object));
    if change.old.is_some() && change.new.is_some() && of(change.old) == of(change.new) {
        return None;
    }
    let uid = change.latest().meta().uid.clone().unwrap_or_default();
    Some(Message::Workload(uid, of(change.new)))
}

/// True when nothing that scheduling asks about has changed: heartbeats must cost nothing.
fn same_node(old: Option<&Arc<Node>>, new: &Arc<Node>) -> bool {
    old.is_some_and(|old| node_events(Some(old), new).0 == 0 && images(old) == images(new))
}

fn images(node: &Node) -> usize {
    node.status.as_ref().and_then(|status| status.images.as_ref()).map_or(0, Vec::len)
}

/// What a change of a node may help.
pub(super) fn node_events(old: Option<&Node>, new: &Node) -> Events {
    let Some(old) = old else { return Events::NODE_ADDED };
    let mut events = Events(0);
    let labels = |node: &Node| node.metadata.labels.clone();
    if labels(old) != labels(new) {
        events = events.or(Events::NODE_LABELS);
    }
    let taints = |node: &Node| {
        let spec = node.spec.clone().unwrap_or_default();
        (spec.taints.unwrap_or_default(), spec.unschedulable.unwrap_or_default())
    };
    if taints(old) != taints(new) {
        events = events.or(Events::NODE_TAINTS);
    }
    let allocatable = |node: &Node| -> BTreeMap<_, _> {
        node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default()
    };
    if allocatable(old) != allocatable(new) {
        events = events.or(Events::NODE_ALLOCATABLE);
    }
    events
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::node;

    #[test]
    fn a_heartbeat_is_no_change_and_a_taint_is() {
        let quiet = Arc::new(node("w1", json!({})));
        let beat = Arc::new(node(
            "w1",
            json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}),
        ));
        assert!(same_node(Some(&quiet), &beat));
        let tainted =
            node("w1", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}));
        assert_eq!(node_events(Some(&quiet), &tainted), Events::NODE_TAINTS);
        assert_eq!(node_events(None, &tainted), Events::NODE_ADDED);
    }
}
