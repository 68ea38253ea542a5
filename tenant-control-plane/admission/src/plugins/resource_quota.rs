//! ResourceQuota: a namespace's objects together stay within its quotas.
//!
//! What is used is counted from the cache at each request, together with what was admitted a
//! moment ago and is not in the cache yet. With several API servers, requests that race within
//! their caches' delay (milliseconds) can pass a quota together; the next one is refused. Source:
//! Kubernetes documentation, "Resource Quotas".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machinery::{GroupResource, Quantity, Status};
use serde_json::Value;

use super::Plugin;
use super::usage::{Amounts, add, amounts, pod_amounts};
use crate::attributes::{Attributes, Operation};
use crate::chain::Context;
use crate::object::{items, text};

/// Resources that each container must ask for when a quota limits them.
const MUST_SPECIFY: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Kinds whose count has a name without `count/`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// How long an admitted object may take to show up in the cache. One whose write failed counts
/// for as long.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct ResourceQuota {
    admitted: Mutex<VecDeque<Admitted>>,
}

/// A new object that passed.
struct Admitted {
    at: Instant,
    resource: GroupResource,
    namespace: String,
    name: String,
    object: Arc<Value>,
}

impl Plugin for ResourceQuota {
    fn comes_last(&self) -> bool {
        true
    }

    fn validate(
        &self,
        context: &Context,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let operation = attributes.operation();
        let writes = matches!(operation, Operation::Create | Operation::Update);
        if !attributes.subresource.is_empty() || !writes || attributes.namespace.is_empty() {
            return Ok(());
        }
        let quotas = GroupResource::new("", "resourcequotas");
        let quotas = context.source.list(&quotas, Some(attributes.namespace));
        if quotas.is_empty() {
            return Ok(());
        }
        let resource = attributes.group_resource();
        let mut delta = usage(&resource, object);
        if let Some(old) = attributes.old {
            for (name, amount) in usage(&resource, old) {
                *delta.entry(name).or_default() -= amount;
            }
        }
        delta.retain(|_, amount| *amount > Quantity::ZERO);
        // Held until the decision is noted: of two requests for the last place one sees the other.
        let mut admitted = self.admitted.lock().expect("no holder of this lock panics");
        let mut there = context.source.list(&resource, Some(attributes.namespace));
        let name = text(&object["metadata"]["name"]);
        let concerns = |a: &Admitted| a.resource == resource && a.namespace == attributes.namespace;
        admitted.retain(|a| {
            let arrived =
                concerns(a) && there.iter().any(|o| text(&o["metadata"]["name"]) == a.name);
            a.at.elapsed() < ON_ITS_WAY && !arrived
        });
        for other in admitted.iter().filter(|a| concerns(a) && a.name != name) {
            there.push(other.object.clone());
        }
        for quota in &quotas {
            check(&there, attributes, &resource, quota, object, &delta)?;
        }
        if operation == Operation::Create && !attributes.dry_run && !name.is_empty() {
            admitted.push_back(Admitted {
                at: Instant::now(),
                namespace: attributes.namespace.to_owned(),
                name: name.to_owned(),
                object: Arc::new(object.clone()),
                resource,
            });
        }
        Ok(())
    }
}

fn check(
    there: &[Arc<Value>],
    attributes: &Attributes<'_>,
    resource: &GroupResource,
    quota: &Value,
    object: &Value,
    delta: &Amounts,
) -> Result<(), Status> {
    if !in_scope(resource, quota, object) {
        return Ok(());
    }
    let name = text(&quota["metadata"]["name"]);
    let hard = amounts(&quota["spec"]["hard"]);
    let is_pod = resource.group.is_empty() && resource.resource == "pods";
    if is_pod && attributes.operation() == Operation::Create {
        let missing = unspecified(&hard, object);
        if !missing.is_empty() {
            let why = format!("failed quota: {name}: must specify {missing}");
            return Err(attributes.forbidden(Some(object), &why));
        }
    }
    let limited: Amounts =
        delta.iter().filter(|(k, _)| hard.contains_key(*k)).map(|(k, v)| (k.clone(), *v)).collect();
    if limited.is_empty() {
        return Ok(());
    }
    let mut used = Amounts::new();
    for other in there {
        if in_scope(resource, quota, other) {
            add(&mut used, &usage(resource, other));
        }
    }
    let of = |list: &Amounts, key: &str| list.get(key).copied().unwrap_or_default();
    let exceeded: Vec<&String> =
        limited.keys().filter(|key| of(&used, key) + limited[*key] > hard[*key]).collect();
    if exceeded.is_empty() {
        return Ok(());
    }
    let print = |list: &Amounts| {
        let shown = exceeded.iter().map(|key| format!("{key}={}", of(list, key)));
        shown.collect::<Vec<_>>().join(",")
    };
    let why = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        print(&limited),
        print(&used),
        print(&hard)
    );
    Err(attributes.forbidden(Some(object), &why))
}

/// What an object counts for.
fn usage(resource: &GroupResource, object: &Value) -> Amounts {
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([(format!("count/{resource}"), one)]);
    if !resource.group.is_empty() {
        return used;
    }
    let name = resource.resource.as_str();
    if name == "pods" && matches!(text(&object["status"]["phase"]), "Succeeded" | "Failed") {
        return used;
    }
    if COUNTED.contains(&name) {
        used.insert(name.to_owned(), one);
    }
    match name {
        "pods" => {
            for (resource, amount) in pod_amounts(object, "requests") {
                let plain = matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage")
                    || resource.starts_with("hugepages-");
                used.insert(format!("requests.{resource}"), amount);
                if plain {
                    used.insert(resource, amount);
                }
            }
            for (resource, amount) in pod_amounts(object, "limits") {
                used.insert(format!("limits.{resource}"), amount);
            }
        }
        "services" => service_usage(object, &mut used),
        "persistentvolumeclaims" => {
            let requests = amounts(&object["spec"]["resources"]["requests"]);
            let storage = requests.get("storage").copied();
            let class = text(&object["spec"]["storageClassName"]);
            for (key, amount) in
                [("requests.storage", storage), ("persistentvolumeclaims", Some(one))]
            {
                let Some(amount) = amount else { continue };
                used.insert(key.to_owned(), amount);
                if !class.is_empty() {
                    used.insert(format!("{class}.storageclass.storage.k8s.io/{key}"), amount);
                }
            }
        }
        _ => {}
    }
    used
}

fn service_usage(service: &Value, used: &mut Amounts) {
    let spec = &service["spec"];
    let ports = items(&spec["ports"]).count() as i64;
    let node_ports = match text(&spec["type"]) {
        "NodePort" => ports,
        "LoadBalancer" => {
            used.insert("services.loadbalancers".to_owned(), Quantity::from_units(1));
            match spec["allocateLoadBalancerNodePorts"].as_bool() {
                Some(false) => items(&spec["ports"])
                    .filter(|port| port["nodePort"].as_i64().is_some_and(|p| p != 0))
                    .count() as i64,
                _ => ports,
            }
        }
        _ => 0,
    };
    if node_ports > 0 {
        used.insert("services.nodeports".to_owned(), Quantity::from_units(node_ports));
    }
}

/// `cpu for: a,b; limits.cpu for: a`: what the quota needs to know and containers leave out.
fn unspecified(hard: &Amounts, pod: &Value) -> String {
    let mut missing = Vec::new();
    let whole = |list: &str, of: &str| !pod["spec"]["resources"][list][of].is_null();
    for name in hard.keys().filter(|name| MUST_SPECIFY.contains(&name.as_str())) {
        let (list, of) = match name.split_once('.') {
            Some((list, of)) => (list, of),
            None => ("requests", name.as_str()),
        };
        if whole(list, of) {
            continue;
        }
        let without: Vec<_> = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|key| items(&pod["spec"][key]))
            .filter(|container| container["resources"][list][of].is_null())
            .map(|container| text(&container["name"]))
            .collect();
        if !without.is_empty() {
            missing.push(format!("{name} for: {}", without.join(",")));
        }
    }
    missing.join("; ")
}

/// True when the quota counts the object.
fn in_scope(resource: &GroupResource, quota: &Value, object: &Value) -> bool {
    let is_pod = resource.group.is_empty() && resource.resource == "pods";
    let scopes = items(&quota["spec"]["scopes"]).map(|scope| holds(text(scope), object));
    let selected = items(&quota["spec"]["scopeSelector"]["matchExpressions"]).map(|expression| {
        let scope = text(&expression["scopeName"]);
        if scope != "PriorityClass" {
            return holds(scope, object);
        }
        let class = text(&object["spec"]["priorityClassName"]);
        let listed = || items(&expression["values"]).any(|value| text(value) == class);
        match text(&expression["operator"]) {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => !class.is_empty(),
            "DoesNotExist" => class.is_empty(),
            _ => false,
        }
    });
    // A quota with scopes counts pods alone.
    scopes.chain(selected).all(|holds| is_pod && holds)
}

fn holds(scope: &str, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
    let best_effort =
        || pod_amounts(pod, "requests").is_empty() && pod_amounts(pod, "limits").is_empty();
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => !text(&spec["priorityClassName"]).is_empty(),
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
            let affinity = &spec["affinity"][kind];
            let required = items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
            let preferred = items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
                .map(|term| &term["podAffinityTerm"]);
            required.chain(preferred).any(|term| {
                items(&term["namespaces"]).next().is_some() || !term["namespaceSelector"].is_null()
            })
        }),
        _ => false,
    }
}
