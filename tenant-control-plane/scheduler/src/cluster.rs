//! What the scheduler knows: nodes, the pods on them (bound or assumed), and what default spreading
//! needs to know about workloads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use component::selector::{self, Labels};
use indexmap::IndexMap;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::budget::Budget;
use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;

/// A node and the sum of what runs on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// False while pods are bound to a node that is not (or no longer) known.
    pub exists: bool,
    /// Labels.
    pub labels: Labels,
    /// Taints.
    pub taints: Vec<Taint>,
    /// True when it is cordoned.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Resources,
    /// How many pods it takes.
    pub max_pods: i64,
    /// Size in bytes of the images it has, by name.
    pub images: HashMap<String, i64>,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same with defaults.
    pub assumed: Resources,
    /// Its pods by uid.
    pub pods: IndexMap<String, Arc<PodInfo>>,
    /// How many of them have required anti-affinity, and any affinity at all.
    pub with_anti_affinity: usize,
    /// See above.
    pub with_affinity: usize,
}

impl NodeInfo {
    fn learn(&mut self, node: &Node) {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        self.exists = true;
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable == Some(true);
        let allocatable = status.allocatable.as_ref();
        self.allocatable = Resources::from_list(allocatable);
        let pods = allocatable.and_then(|list| list.get("pods"));
        self.max_pods = pods.and_then(|text| text.0.parse().ok()).unwrap_or_default();
        self.images = status
            .images
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or_default();
                image.names.into_iter().flatten().map(move |name| (name, size))
            })
            .collect();
    }

    /// Adds a pod to the sums.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.requests);
        self.assumed.add(&pod.assumed);
        self.with_anti_affinity += usize::from(!pod.terms.anti_affinity.is_empty());
        self.with_affinity += usize::from(has_terms(&pod));
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Takes a pod out of the sums.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.swap_remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.assumed.subtract(&pod.assumed);
        self.with_anti_affinity -= usize::from(!pod.terms.anti_affinity.is_empty());
        self.with_affinity -= usize::from(has_terms(&pod));
        Some(pod)
    }

    /// True when a pod on the node holds a port that conflicts.
    pub fn port_taken(&self, port: &HostPort) -> bool {
        self.pods.values().any(|pod| pod.host_ports.iter().any(|held| held.conflicts(port)))
    }
}

fn has_terms(pod: &PodInfo) -> bool {
    let terms = &pod.terms;
    let lists = [&terms.affinity, &terms.anti_affinity, &terms.preferred, &terms.preferred_anti];
    lists.into_iter().any(|list| !list.is_empty())
}

/// Room that is being made for a pod.
#[derive(Clone, Debug)]
struct Nomination {
    node: String,
    /// Uids of the pods that have to leave.
    victims: Vec<String>,
    since: Instant,
}

/// How long victims may take until their deletion is seen here: there may be many before them.
const EVICTION: Duration = Duration::from_secs(60);

/// Everything that a decision rests on.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Nodes by name, in the order of their arrival.
    nodes: IndexMap<String, NodeInfo>,
    /// Node of each known pod, by uid.
    homes: HashMap<String, String>,
    /// Pods for which preemption makes room on a node, by uid.
    nominations: HashMap<String, Nomination>,
    /// The same pods by node.
    nominated: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
    /// How many pods on nodes have required anti-affinity.
    with_anti_affinity: usize,
    /// Labels of namespaces.
    pub namespaces: HashMap<String, Labels>,
    /// Selectors of Services, by namespace and name.
    pub services: HashMap<String, BTreeMap<String, Labels>>,
    /// PodDisruptionBudgets by namespace and name.
    pub budgets: HashMap<String, BTreeMap<String, Budget>>,
    /// Selectors of ReplicaSets and StatefulSets, by their uid.
    pub workloads: HashMap<String, LabelSelector>,
}

impl Cluster {
    /// The nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|node| node.exists)
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|node| node.exists)
    }

    /// Takes in a new or changed node.
    pub fn put_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name.clone()).or_default();
        info.name = name;
        info.learn(node);
    }

    /// Forgets a node; its pods stay known until they are deleted.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            if node.pods.is_empty() {
                self.nodes.shift_remove(name);
            } else {
                node.exists = false;
            }
        }
    }

    /// Counts a pod on a node, bound or assumed.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(&pod.uid);
        self.homes.insert(pod.uid.clone(), node.to_owned());
        self.with_anti_affinity += usize::from(!pod.terms.anti_affinity.is_empty());
        let info = self.nodes.entry(node.to_owned()).or_default();
        node.clone_into(&mut info.name);
        info.add_pod(pod);
    }

    /// Takes a pod out. Returns the node where there is room now, if it was counted on one.
    pub fn remove_pod(&mut self, uid: &str) -> Option<String> {
        self.drop_nomination(uid);
        let home = self.homes.remove(uid)?;
        if let Some(node) = self.nodes.get_mut(&home) {
            let pod = node.remove_pod(uid);
            let had = pod.is_some_and(|pod| !pod.terms.anti_affinity.is_empty());
            self.with_anti_affinity -= usize::from(had);
            if !node.exists && node.pods.is_empty() {
                self.nodes.shift_remove(&home);
            }
        }
        Some(home)
    }

    /// True when some pod on a node refuses neighbours.
    pub fn has_anti_affinity(&self) -> bool {
        self.with_anti_affinity > 0
    }

    /// True when the pod is counted on some node.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.homes.contains_key(uid)
    }

    /// A pod that is counted on some node.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.nodes.get(self.homes.get(uid)?)?.pods.get(uid)
    }

    /// Remembers that room is made on a node for the pod, by these pods' leaving. Returns the node
    /// that was meant before.
    pub fn nominate(
        &mut self,
        pod: Arc<PodInfo>,
        node: &str,
        victims: Vec<String>,
        now: Instant,
    ) -> Option<String> {
        let before = self.drop_nomination(&pod.uid);
        let nomination = Nomination { node: node.to_owned(), victims, since: now };
        self.nominations.insert(pod.uid.clone(), nomination);
        self.nominated.entry(node.to_owned()).or_default().insert(pod.uid.clone(), pod);
        before
    }

    /// The pods that a node is nominated for.
    pub fn nominees(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// The node that a pod is nominated for.
    pub fn nominated_node(&self, uid: &str) -> Option<&str> {
        self.nominations.get(uid).map(|nomination| nomination.node.as_str())
    }

    /// Forgets a nomination. Returns the node that was meant.
    pub fn drop_nomination(&mut self, uid: &str) -> Option<String> {
        let nomination = self.nominations.remove(uid)?;
        if let Some(pods) = self.nominated.get_mut(&nomination.node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.nominated.remove(&nomination.node);
            }
        }
        Some(nomination.node)
    }

    /// True while pods are still leaving the node that the pod is nominated for: no others have to
    /// leave for it.
    pub fn is_making_room(&self, pod: &PodInfo, now: Instant) -> bool {
        let Some(nomination) = self.nominations.get(&pod.uid) else { return false };
        let Some(node) = self.node(&nomination.node) else { return false };
        let is_fresh = now.saturating_duration_since(nomination.since) < EVICTION;
        node.pods.values().filter(|other| other.priority < pod.priority).any(|other| {
            other.is_leaving_for_another() || is_fresh && nomination.victims.contains(&other.uid)
        })
    }

    /// The node, with the pods nominated for it that are at least as important as `pod` counted as
    /// if they ran; `None` when there are none.
    pub fn with_nominated(&self, node: &NodeInfo, pod: &PodInfo) -> Option<NodeInfo> {
        let mut expected = self
            .nominated
            .get(&node.name)?
            .values()
            .filter(|other| other.uid != pod.uid && other.priority >= pod.priority);
        let first = expected.next()?;
        let mut full = node.clone();
        full.add_pod(first.clone());
        for other in expected {
            full.add_pod(other.clone());
        }
        Some(full)
    }

    /// The selectors of the Services and of the workload that the pod belongs to: its like are
    /// spread although the pod says nothing about it.
    pub fn default_spread(&self, pod: &PodInfo) -> Option<Vec<LabelSelector>> {
        let services = self.services.get(&pod.namespace).into_iter().flat_map(BTreeMap::values);
        let mut found: Vec<_> = services
            .filter(|wanted| !wanted.is_empty() && selector::matches_map(wanted, Some(&pod.labels)))
            .map(|wanted| LabelSelector {
                match_labels: Some(wanted.clone()),
                match_expressions: None,
            })
            .collect();
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        found.extend(owner.and_then(|owner| self.workloads.get(&owner.uid).cloned()));
        (!found.is_empty()).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn room_is_being_made_until_the_victims_are_gone() {
        let mut cluster = crate::testing::cluster(&[node("w1", json!({}))]);
        let (victim, urgent) = (pod("victim", json!({})), pod("urgent", json!({"priority": 9})));
        cluster.put_pod(victim.clone(), "w1");
        let now = Instant::now();
        assert!(!cluster.is_making_room(&urgent, now));
        cluster.nominate(urgent.clone(), "w1", vec![victim.uid.clone()], now);
        assert_eq!(cluster.nominated_node(&urgent.uid), Some("w1"));
        assert!(cluster.is_making_room(&urgent, now));
        assert!(!cluster.is_making_room(&urgent, now + EVICTION), "nobody has deleted it");
        cluster.remove_pod(&victim.uid);
        assert!(!cluster.is_making_room(&urgent, now));
        cluster.put_pod(urgent.clone(), "w1");
        assert_eq!(cluster.nominated_node(&urgent.uid), None);
        assert!(cluster.nominated.is_empty());
    }

    #[test]
    fn sums_follow_pods_and_survive_the_order_of_events() {
        let mut cluster = Cluster::default();
        let one = pod(
            "one",
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}),
        );
        cluster.put_pod(one.clone(), "w1");
        assert_eq!(cluster.nodes().count(), 0, "the node itself is not known yet");
        cluster.put_node(&node("w1", json!({})));
        assert_eq!(cluster.node("w1").unwrap().requested.milli_cpu, 1000);
        cluster.put_pod(one.clone(), "w1");
        assert_eq!(cluster.node("w1").unwrap().requested.milli_cpu, 1000, "counted once");
        cluster.remove_node("w1");
        assert!(cluster.node("w1").is_none());
        assert_eq!(cluster.remove_pod(&one.uid).as_deref(), Some("w1"));
        assert_eq!(cluster.remove_pod(&one.uid), None);
        assert!(cluster.nodes.is_empty());
    }
}
