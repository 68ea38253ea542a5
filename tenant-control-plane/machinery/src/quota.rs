//! What objects count for in ResourceQuotas: the rules that admission and the controller share.
//! Source: Kubernetes documentation, "Resource Quotas".

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::amounts::{Amounts, amounts, is_pod_level, pod_amounts};
use crate::json::{items, text};
use crate::{GroupResource, Quantity};

/// Core kinds whose count has a name without `count/`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What follows a storage class's name in the resources that are counted per class.
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
/// What of a pod's limits is counted.
const LIMITS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The resource whose objects a name in `spec.hard` counts, `None` for a name that nothing counts.
pub fn counted_by(name: &str) -> Option<GroupResource> {
    if let Some(resource) = name.strip_prefix("count/") {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        return Some(GroupResource::new(group, plural));
    }
    let core = |plural: &str| Some(GroupResource::new("", plural));
    if COUNTED.contains(&name) {
        return core(name);
    }
    if matches!(name, "services.nodeports" | "services.loadbalancers") {
        return core("services");
    }
    let claims = |of: &str| matches!(of, "requests.storage" | "persistentvolumeclaims");
    if claims(name) || name.split_once(BY_CLASS).is_some_and(|(_, of)| claims(of)) {
        return core("persistentvolumeclaims");
    }
    let is_of_pods = match name.split_once('.') {
        Some(("limits", of)) => LIMITS.contains(&of),
        Some(("requests", of)) => LIMITS.contains(&of) || is_pod_level(of) || of.contains('/'),
        _ => LIMITS.contains(&name) || is_pod_level(name),
    };
    if is_of_pods { core("pods") } else { None }
}

/// What one object counts for.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    usage: Amounts,
    /// A pod that was to be gone by then counts for nothing but its place in the store.
    lapses: Option<Timestamp>,
    facts: Option<Facts>,
}

/// What scopes ask about an object.
#[derive(Clone, Debug)]
enum Facts {
    Pod { terminating: bool, best_effort: bool, crosses_namespaces: bool, class: String },
    Claim { attribute_classes: Vec<String> },
}

impl Counted {
    /// Reads an object of a resource.
    pub fn of(resource: &GroupResource, object: &Value) -> Self {
        let one = Quantity::from_units(1);
        let mut counted = Self::default();
        counted.usage.insert(format!("count/{resource}"), one);
        if !resource.group.is_empty() {
            return counted;
        }
        let name = resource.resource.as_str();
        if name == "pods" {
            counted.facts = Some(pod_facts(object));
            if matches!(text(&object["status"]["phase"]), "Succeeded" | "Failed") {
                return counted;
            }
            counted.lapses = lapses(object);
        }
        if COUNTED.contains(&name) {
            counted.usage.insert(name.to_owned(), one);
        }
        match name {
            "pods" => pod_usage(object, &mut counted.usage),
            "services" => service_usage(object, &mut counted.usage),
            "persistentvolumeclaims" => {
                counted.facts = Some(Facts::Claim { attribute_classes: attribute_classes(object) });
                claim_usage(object, &mut counted.usage);
            }
            _ => {}
        }
        counted
    }

    /// The amounts by their names in a quota.
    pub fn usage(&self, now: Timestamp) -> impl Iterator<Item = (&str, Quantity)> {
        let lapsed = self.lapses.is_some_and(|end| now > end);
        let used = self.usage.iter().map(|(name, amount)| (name.as_str(), *amount));
        used.filter(move |(name, _)| !lapsed || name.starts_with("count/"))
    }

    /// True when all of the scopes apply to the object.
    pub fn is_in(&self, scopes: &Scopes) -> bool {
        scopes.0.iter().all(|scope| self.facts.as_ref().is_some_and(|facts| facts.satisfy(scope)))
    }
}

/// The scopes of a quota. Objects without any of the facts that a scope asks for are never in it.
#[derive(Clone, Debug, Default)]
pub struct Scopes(Vec<Scope>);

#[derive(Clone, Debug)]
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Scopes {
    /// `spec.scopes` and `spec.scopeSelector` of a quota.
    pub fn of(quota: &Value) -> Self {
        let spec = &quota["spec"];
        let plain = items(&spec["scopes"]).map(|scope| Scope {
            name: text(scope).to_owned(),
            operator: "Exists".to_owned(),
            values: Vec::new(),
        });
        let selected = items(&spec["scopeSelector"]["matchExpressions"]).map(|rule| Scope {
            name: text(&rule["scopeName"]).to_owned(),
            operator: text(&rule["operator"]).to_owned(),
            values: items(&rule["values"]).map(|value| text(value).to_owned()).collect(),
        });
        Self(plain.chain(selected).collect())
    }

    /// True when every object is in scope.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

impl Scope {
    /// Whether one of the names, or that there is none, satisfies the scope's operator.
    fn selects(&self, names: &[&str]) -> bool {
        let listed = |name: &str| self.values.iter().any(|value| value == name);
        match self.operator.as_str() {
            "In" => names.iter().any(|name| listed(name)),
            "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
            "Exists" => !names.is_empty(),
            "DoesNotExist" => names.is_empty(),
            _ => false,
        }
    }
}

impl Facts {
    fn satisfy(&self, scope: &Scope) -> bool {
        match self {
            Facts::Pod { terminating, best_effort, crosses_namespaces, class } => {
                match scope.name.as_str() {
                    "Terminating" => *terminating,
                    "NotTerminating" => !terminating,
                    "BestEffort" => *best_effort,
                    "NotBestEffort" => !best_effort,
                    "CrossNamespacePodAffinity" => *crosses_namespaces,
                    "PriorityClass" if class.is_empty() => scope.selects(&[]),
                    "PriorityClass" => scope.selects(&[class.as_str()]),
                    _ => false,
                }
            }
            Facts::Claim { attribute_classes } => {
                let names: Vec<_> = attribute_classes.iter().map(String::as_str).collect();
                scope.name == "VolumeAttributesClass" && scope.selects(&names)
            }
        }
    }
}

fn pod_facts(pod: &Value) -> Facts {
    let spec = &pod["spec"];
    Facts::Pod {
        terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0),
        best_effort: is_best_effort(pod),
        crosses_namespaces: crosses_namespaces(spec),
        class: text(&spec["priorityClassName"]).to_owned(),
    }
}

/// True when neither the pod nor any of its containers asks for or is limited in CPU or memory.
fn is_best_effort(pod: &Value) -> bool {
    match text(&pod["status"]["qosClass"]) {
        "" => {}
        class => return class == "BestEffort",
    }
    let spec = &pod["spec"];
    let asks = |resources: &Value| {
        ["requests", "limits"].into_iter().any(|key| {
            let asked = amounts(&resources[key]);
            ["cpu", "memory"].into_iter().any(|name| asked.get(name).is_some_and(|a| !a.is_zero()))
        })
    };
    let mut containers = items(&spec["containers"]).chain(items(&spec["initContainers"]));
    !asks(&spec["resources"]) && !containers.any(|container| asks(&container["resources"]))
}

fn crosses_namespaces(spec: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = &spec["affinity"][kind];
        let required = items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
            .map(|term| &term["podAffinityTerm"]);
        required.chain(preferred).any(|term| {
            items(&term["namespaces"]).next().is_some() || !term["namespaceSelector"].is_null()
        })
    })
}

/// When a pod that is being deleted counts as stuck.
fn lapses(pod: &Value) -> Option<Timestamp> {
    let meta = &pod["metadata"];
    let deleted: Timestamp = text(&meta["deletionTimestamp"]).parse().ok()?;
    let grace = meta["deletionGracePeriodSeconds"].as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn pod_usage(pod: &Value, used: &mut Amounts) {
    for (name, amount) in pod_amounts(pod, "requests") {
        let is_plain = LIMITS.contains(&name.as_str()) || is_pod_level(&name);
        if is_plain || name.contains('/') {
            used.insert(format!("requests.{name}"), amount);
        }
        if is_plain {
            used.insert(name, amount);
        }
    }
    for (name, amount) in pod_amounts(pod, "limits") {
        if LIMITS.contains(&name.as_str()) {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service_usage(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let count = |number: usize| Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX));
    let ports = count(items(&spec["ports"]).count());
    let (node_ports, balancers) = match text(&spec["type"]) {
        "NodePort" => (ports, 0),
        // Those that are allocated by the server are not known yet at admission.
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => {
            let set = |port: &&Value| port["nodePort"].as_i64().is_some_and(|p| p != 0);
            (count(items(&spec["ports"]).filter(set).count()), 1)
        }
        "LoadBalancer" => (ports, 1),
        _ => (Quantity::ZERO, 0),
    };
    used.insert("services.nodeports".to_owned(), node_ports);
    used.insert("services.loadbalancers".to_owned(), Quantity::from_units(balancers));
}

fn claim_usage(claim: &Value, used: &mut Amounts) {
    let of = |list: &Value| amounts(list).get("storage").copied();
    let whole = |size: Quantity| match size.is_integer() {
        true => size,
        false => Quantity::from_bytes(size.value()),
    };
    let asked = of(&claim["spec"]["resources"]["requests"]).map(|asked| {
        let allocated = of(&claim["status"]["allocatedResources"]).unwrap_or_default();
        whole(asked.max(allocated))
    });
    let legacy = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    let class = legacy.as_str().unwrap_or_else(|| text(&claim["spec"]["storageClassName"]));
    let one = Some(Quantity::from_units(1));
    for (name, amount) in [("requests.storage", asked), ("persistentvolumeclaims", one)] {
        let Some(amount) = amount else { continue };
        used.insert(name.to_owned(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{BY_CLASS}{name}"), amount);
        }
    }
}

fn attribute_classes(claim: &Value) -> Vec<String> {
    let status = &claim["status"];
    let names = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let mut names: Vec<_> = names.into_iter().map(|name| text(name).to_owned()).collect();
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
