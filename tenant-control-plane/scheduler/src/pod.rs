//! A pod, reduced to what scheduling asks about.

use std::collections::BTreeSet;
use std::sync::Arc;

use component::selector::{self, Labels};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Affinity, Pod, PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::resources::{self, Resources};

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Address, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// True when both cannot be open on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |port: &Self| port.ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(self) || any(other) || self.ip == other.ip)
    }
}

/// Which pods an affinity term is about, and in what domain.
#[derive(Clone, Debug)]
pub struct Term {
    selector: Option<LabelSelector>,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<LabelSelector>,
    /// Label of nodes that makes domains.
    pub topology_key: String,
    /// Weight of a preferred term, 0 for a required one.
    pub weight: i64,
}

impl Term {
    fn new(term: &PodAffinityTerm, weight: i32, namespace: &str) -> Self {
        let mut namespaces: BTreeSet<_> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Self {
            selector: term.label_selector.clone(),
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
            topology_key: term.topology_key.clone(),
            weight: i64::from(weight),
        }
    }

    /// Whether the term is about the pod. `namespace_labels` are those of the pod's namespace.
    pub fn selects(&self, pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
        let in_namespace = self.namespaces.contains(&pod.namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|wanted| selector::matches(wanted, namespace_labels));
        in_namespace && selector::matches_opt(self.selector.as_ref(), Some(&pod.labels))
    }
}

/// Affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default)]
pub struct PodTerms {
    /// Required affinity.
    pub affinity: Vec<Term>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Preferred affinity.
    pub preferred: Vec<Term>,
    /// Preferred anti-affinity.
    pub preferred_anti: Vec<Term>,
}

/// A pod as the plugins see it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod as the API has it.
    pub pod: Arc<Pod>,
    /// Unique identifier.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Importance; a higher one is served first and may preempt.
    pub priority: i32,
    /// What it asks for.
    pub requests: Resources,
    /// The same with defaults, for comparing nodes.
    pub assumed: Resources,
    /// Ports of the node that it takes.
    pub host_ports: Vec<HostPort>,
    /// Affinity to other pods.
    pub terms: PodTerms,
    /// Its own spread constraints.
    pub spread: Vec<TopologySpreadConstraint>,
    /// True while it is being deleted.
    pub deleting: bool,
}

/// Reason in the condition of a pod that has to leave for another.
pub const PREEMPTED: &str = "PreemptionByScheduler";

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                ip: ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

fn terms(affinity: Option<&Affinity>, namespace: &str) -> PodTerms {
    let required = |terms: Option<&Vec<PodAffinityTerm>>| {
        terms.into_iter().flatten().map(|term| Term::new(term, 0, namespace)).collect()
    };
    let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>| {
        let terms = terms.into_iter().flatten();
        terms.map(|t| Term::new(&t.pod_affinity_term, t.weight, namespace)).collect()
    };
    let with = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let against = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    PodTerms {
        affinity: required(
            with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        ),
        anti_affinity: required(
            against.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        ),
        preferred: preferred(
            with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        ),
        preferred_anti: preferred(
            against.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        ),
    }
}

impl PodInfo {
    /// Reduces a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            requests: resources::requests(&spec),
            assumed: resources::assumed_requests(&spec),
            host_ports: host_ports(&spec),
            terms: terms(spec.affinity.as_ref(), &namespace),
            spread: spec.topology_spread_constraints.unwrap_or_default(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            namespace,
            pod,
        }
    }

    /// The pod's spec.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The node that it is bound to.
    pub fn node(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// The node that preemption made room on for it.
    pub fn nominated(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// True while somebody holds it back.
    pub fn is_gated(&self) -> bool {
        self.spec().scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
    }

    /// True when all containers have ended for good.
    pub fn is_finished(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// True when it is being deleted to make room for another.
    pub fn is_leaving_for_another(&self) -> bool {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        self.deleting
            && conditions.into_iter().flatten().any(|condition| {
                condition.type_ == "DisruptionTarget"
                    && condition.reason.as_deref() == Some(PREEMPTED)
            })
    }

    /// When it was created.
    pub fn created(&self) -> Timestamp {
        self.pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }
}
