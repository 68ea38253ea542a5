//! Amounts of resources, and how much a pod asks for.
//!
//! Source: Kubernetes documentation, "Resource Management for Pods and Containers", "Sidecar
//! Containers" (KEP-753) and "Pod Overhead".

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use machinery::quantity::Quantity;

/// Amounts, in the unit that each resource is counted in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral: i64,
    /// Other resources (GPUs, huge pages), whole units.
    pub others: BTreeMap<String, i64>,
}

/// What a container without requests is taken to use when nodes are compared.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// The same in bytes of memory.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

fn quantity(text: &ApiQuantity) -> Quantity {
    // The API server has validated it.
    text.0.parse().unwrap_or(Quantity::ZERO)
}

impl Resources {
    /// From a list as the API has it. `pods` is not an amount and is left out.
    pub fn from_list(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let mut amounts = Self::default();
        for (name, text) in list.into_iter().flatten() {
            let amount = quantity(text);
            match name.as_str() {
                "cpu" => amounts.milli_cpu = amount.milli_value(),
                "memory" => amounts.memory = amount.value(),
                "ephemeral-storage" => amounts.ephemeral = amount.value(),
                "pods" => {}
                _ => {
                    amounts.others.insert(name.clone(), amount.value());
                }
            }
        }
        amounts
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Subtracts.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// Keeps the larger amount of each.
    pub fn at_least(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral = f(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.others {
            let entry = self.others.entry(name.clone()).or_default();
            *entry = f(*entry, *amount);
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod asks for: its containers and sidecars together, or an init container that needs more
/// (beside the sidecars started before it), plus the overhead. Requests on the pod itself replace
/// the sum. `of` says what one container asks for.
fn pod_total(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let (mut sidecars, mut init_peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        init_peak.at_least(&needed);
    }
    total.add(&sidecars);
    total.at_least(&init_peak);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some(whole) = whole {
        let amounts = Resources::from_list(Some(whole));
        if whole.contains_key("cpu") {
            total.milli_cpu = amounts.milli_cpu;
        }
        if whole.contains_key("memory") {
            total.memory = amounts.memory;
        }
        total.others.extend(amounts.others);
    }
    total.add(&Resources::from_list(spec.overhead.as_ref()));
    total
}

/// What the pod asks for.
pub fn requests(spec: &PodSpec) -> Resources {
    pod_total(spec, |container| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        Resources::from_list(requests)
    })
}

/// The same, with defaults where a container says nothing about CPU or memory: so that pods without
/// requests spread, too.
pub fn assumed_requests(spec: &PodSpec) -> Resources {
    pod_total(spec, |container| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut amounts = Resources::from_list(requests);
        if requests.is_none_or(|requests| !requests.contains_key("cpu")) {
            amounts.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if requests.is_none_or(|requests| !requests.contains_key("memory")) {
            amounts.memory = DEFAULT_MEMORY;
        }
        amounts
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_sidecars_and_overhead_count_as_documented() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m", "example.com/gpu": "1"}}}],
            "initContainers": [
                {"name": "first", "resources": {"requests": {"memory": "3Gi"}}},
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "last", "resources": {"requests": {"cpu": "2"}}}],
            "overhead": {"cpu": "10m"}
        }))
        .unwrap();
        let total = requests(&spec);
        assert_eq!(total.milli_cpu, 2000 + 100 + 10);
        assert_eq!(total.memory, 3 << 30);
        assert_eq!(total.others["example.com/gpu"], 1);
    }

    #[test]
    fn a_pod_without_requests_is_still_counted_when_nodes_are_compared() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap();
        assert_eq!(requests(&spec), Resources::default());
        assert_eq!(assumed_requests(&spec).milli_cpu, DEFAULT_MILLI_CPU);
        assert_eq!(assumed_requests(&spec).memory, DEFAULT_MEMORY);
    }
}
