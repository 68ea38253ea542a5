//! What a pod asks of its node: requests and limits as the scheduler and quotas count them.
//! Source: KEP-753 (sidecar containers), KEP-2837 (pod-level resources), KEP-688 (overhead),
//! KEP-1287 (resize in place).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Quantity;
use crate::json::{items, text};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a resource list. Values that are not quantities are left out; validation
/// refuses them.
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), Quantity::from_json(v).ok()?))).collect()
}

/// Adds amounts by name.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = to.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// True for what may be asked for by a pod as a whole.
pub fn is_pod_level(resource: &str) -> bool {
    resource == "cpu" || resource == "memory" || resource.starts_with("hugepages-")
}

/// A container's amounts: the larger of what it asks for and what its node has given it, which
/// differ while a resize is under way.
fn container_amounts(pod: &Value, container: &Value, statuses: &str, key: &str) -> Amounts {
    let asked = amounts(&container["resources"][key]);
    let mut all = items(&pod["status"][statuses]);
    let status = all.find(|status| status["name"] == container["name"]);
    let Some(status) = status.filter(|status| !status["resources"].is_null()) else {
        return asked;
    };
    let mut pending = items(&pod["status"]["conditions"]);
    let pending = pending.find(|condition| condition["type"] == "PodResizePending");
    let is_infeasible = pending.is_some_and(|condition| condition["reason"] == "Infeasible");
    let mut effective = if is_infeasible { Amounts::new() } else { asked };
    raise(&mut effective, &amounts(&status["resources"][key]));
    if key == "requests" {
        raise(&mut effective, &amounts(&status["allocatedResources"]));
    }
    effective
}

/// A pod's `requests` or `limits`: the larger of what its containers need together and what each
/// step of initialization needs, with its overhead.
pub fn pod_amounts(pod: &Value, key: &str) -> Amounts {
    let spec = &pod["spec"];
    let mut total = Amounts::new();
    for container in items(&spec["containers"]) {
        add(&mut total, &container_amounts(pod, container, "containerStatuses", key));
    }
    let (mut sidecars, mut highest) = (Amounts::new(), Amounts::new());
    for container in items(&spec["initContainers"]) {
        if text(&container["restartPolicy"]) == "Always" {
            let own = container_amounts(pod, container, "initContainerStatuses", key);
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut highest, &sidecars);
        } else {
            let mut step = amounts(&container["resources"][key]);
            add(&mut step, &sidecars);
            raise(&mut highest, &step);
        }
    }
    raise(&mut total, &highest);
    for (name, amount) in amounts(&spec["resources"][key]) {
        if is_pod_level(&name) {
            total.insert(name, amount);
        }
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        // Without a limit there is nothing that overhead could raise.
        if key == "requests" || total.get(&name).is_some_and(|limit| !limit.is_zero()) {
            *total.entry(name).or_default() += amount;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cpu(pod: &Value, key: &str) -> String {
        pod_amounts(pod, key).get("cpu").copied().unwrap_or_default().to_string()
    }

    #[test]
    fn sidecars_add_and_initialization_sets_a_floor() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let mut pod = json!({"spec": {
            "containers": [container("200m"), container("300m")],
            "initContainers": [sidecar, container("1")],
            "overhead": {"cpu": "10m"},
        }});
        assert_eq!(cpu(&pod, "requests"), "1110m");
        assert_eq!(cpu(&pod, "limits"), "0");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(cpu(&pod, "requests"), "2010m");
    }

    #[test]
    fn a_resize_under_way_counts_with_the_larger_side() {
        let mut pod = json!({
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"containerStatuses": [{"name": "c",
                "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "500m"}}]},
        });
        assert_eq!(cpu(&pod, "requests"), "2");
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "3".into();
        assert_eq!(cpu(&pod, "requests"), "3");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        assert_eq!(cpu(&pod, "requests"), "2");
    }
}
