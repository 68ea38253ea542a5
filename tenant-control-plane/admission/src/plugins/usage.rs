//! What a pod asks of its node: requests and limits as the scheduler and quotas count them.
//! Source: KEP-753 (sidecar containers), KEP-2837 (pod-level resources), KEP-688 (overhead).

use std::collections::BTreeMap;

use machinery::Quantity;
use serde_json::Value;

use crate::object::{items, text};

/// Amounts by resource name.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a resource list. Values that are not quantities are left out; validation
/// refuses them.
pub(super) fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(k, v)| Some((k.clone(), Quantity::from_json(v).ok()?))).collect()
}

/// Adds amounts by name.
pub(super) fn add(to: &mut Amounts, more: &Amounts) {
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

/// A pod's `requests` or `limits`: the larger of what its containers need together and what each
/// step of initialization needs, with its overhead.
pub(super) fn pod_amounts(pod: &Value, key: &str) -> Amounts {
    let spec = &pod["spec"];
    let mut total = Amounts::new();
    for container in items(&spec["containers"]) {
        add(&mut total, &amounts(&container["resources"][key]));
    }
    let (mut sidecars, mut highest) = (Amounts::new(), Amounts::new());
    for container in items(&spec["initContainers"]) {
        let own = amounts(&container["resources"][key]);
        if text(&container["restartPolicy"]) == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut highest, &sidecars);
        } else {
            let mut step = own;
            add(&mut step, &sidecars);
            raise(&mut highest, &step);
        }
    }
    raise(&mut total, &highest);
    for (name, amount) in amounts(&spec["resources"][key]) {
        let counted = name == "cpu" || name == "memory" || name.starts_with("hugepages-");
        if counted {
            total.insert(name, amount);
        }
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        // Without a limit there is nothing that overhead could raise.
        if key == "requests" || total.contains_key(&name) {
            *total.entry(name).or_default() += amount;
        }
    }
    total
}
