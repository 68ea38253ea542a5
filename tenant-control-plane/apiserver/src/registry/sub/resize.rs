//! `pods/resize` (KEP-1287): what of a pod it may change, and what is wrong with a change.

use machinery::amounts::amounts;
use machinery::json::items;
use machinery::{Cause, Quantity};
use serde_json::{Value, json};

use crate::strategy::{cause, keep, pod, qos};

/// The lists whose containers can be resized.
const LISTS: [&str; 2] = ["containers", "initContainers"];
const ONLY: &str = "Forbidden: only cpu and memory resources are mutable";
const ONLY_OF_SIDECARS: &str =
    "Forbidden: only cpu and memory resources for sidecar containers are mutable";
const NOT_OF_INIT: &str = "Forbidden: resources for non-sidecar init containers are immutable";

fn names(spec: &Value, list: &str) -> Vec<Value> {
    items(&spec[list]).map(|container| container["name"].clone()).collect()
}

/// Leaves of a new pod only what a resize may change, and puts back the rest. Containers that
/// were renamed or reordered stay as they are wanted, for [`check`] to say so.
pub fn restrict(new: &mut Value, old: &Value) {
    let wanted = std::mem::replace(new, old.clone());
    keep(&mut new["metadata"], &wanted["metadata"], "managedFields");
    for list in LISTS {
        if names(&wanted["spec"], list) != names(&old["spec"], list) {
            keep(&mut new["spec"], &wanted["spec"], list);
            continue;
        }
        let containers = new["spec"][list].as_array_mut().into_iter().flatten();
        for (container, wanted) in containers.zip(items(&wanted["spec"][list])) {
            for key in ["resources", "resizePolicy"] {
                keep(container, wanted, key);
            }
        }
    }
    pod::default_requests(new);
}

fn renamed(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for list in LISTS {
        let (new, old) = (names(new, list), names(old, list));
        let field = format!("spec.{list}");
        if new.len() != old.len() {
            let text = format!("Forbidden: {list} may not be added or removed on resize");
            causes.push(cause("FieldValueForbidden", &field, text));
            continue;
        }
        for (index, _) in new.iter().zip(&old).enumerate().filter(|(_, (new, old))| new != old) {
            let text = format!("Forbidden: {list} may not be renamed or reordered on resize");
            causes.push(cause("FieldValueForbidden", &format!("{field}[{index}].name"), text));
        }
    }
    causes
}

/// What cannot be resized whatever is asked for.
fn unsupported(old: &Value) -> Option<&'static str> {
    if !old["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return Some("Forbidden: static pods cannot be resized");
    }
    if old["spec"]["os"]["name"] == "windows" {
        return Some("Forbidden: windows pods cannot be resized");
    }
    None
}

/// A node that does not say what its containers have cannot change it.
fn node_can(old: &Value) -> bool {
    let mut statuses = items(&old["status"]["containerStatuses"]);
    let running = statuses.find(|status| !status["state"]["running"].is_null());
    running.is_none_or(|status| !status["resources"].is_null())
}

fn removed(new: &Value, old: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for key in ["requests", "limits"] {
        let (new, old) = (&new["resources"][key], &old["resources"][key]);
        let mut had = old.as_object().into_iter().flatten();
        if had.any(|(name, _)| new.get(name).is_none()) {
            let text = format!("Forbidden: resource {key} cannot be removed");
            causes.push(cause("FieldValueForbidden", &format!("{field}.resources.{key}"), text));
        }
    }
    causes
}

/// A container without what a resize may change of it.
fn fixed(container: &Value) -> (Value, [Vec<(String, Quantity)>; 2]) {
    let mut rest = container.clone();
    let of = |key: &str| {
        let all = amounts(&container["resources"][key]);
        all.into_iter().filter(|(name, _)| name != "cpu" && name != "memory").collect()
    };
    let others = [of("requests"), of("limits")];
    if let Some(resources) = rest.get_mut("resources").and_then(Value::as_object_mut) {
        resources.remove("requests");
        resources.remove("limits");
        if resources.is_empty() {
            rest.as_object_mut().map(|rest| rest.remove("resources"));
        }
    }
    (rest, others)
}

fn container_causes(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for list in LISTS {
        let pairs = items(&new["spec"][list]).zip(items(&old["spec"][list]));
        for (index, (new, old)) in pairs.enumerate() {
            let once = list == "initContainers" && old["restartPolicy"] != "Always";
            let text = match list {
                _ if once => NOT_OF_INIT,
                "initContainers" => ONLY_OF_SIDECARS,
                _ => ONLY,
            };
            if !once {
                causes.extend(removed(new, old, &format!("spec.{list}[{index}]")));
            }
            if (once && new != old) || fixed(new) != fixed(old) {
                causes.push(cause("FieldValueForbidden", "spec", text));
            }
        }
    }
    causes
}

/// What is wrong with a resize, beside what is wrong with the new pod itself.
pub fn check(new: &Value, old: &Value) -> Vec<Cause> {
    if let Some(text) = unsupported(old) {
        return vec![cause("FieldValueForbidden", "", text)];
    }
    let mut causes = Vec::new();
    let class = |pod: &Value| match &pod["status"]["qosClass"] {
        Value::Null => json!(qos::class(&pod["spec"])),
        class => class.clone(),
    };
    let before = class(old);
    if before != qos::class(&new["spec"]) {
        let text = format!(
            "Invalid value: {before}: Pod QOS Class may not change as a result of resizing"
        );
        causes.push(cause("FieldValueInvalid", "spec", text));
    }
    if !node_can(old) {
        let text = "Forbidden: Pod running on node without support for resize";
        causes.push(cause("FieldValueForbidden", "spec", text));
    }
    let whole = &old["spec"]["resources"];
    if ["requests", "limits"].iter().any(|key| !amounts(&whole[key]).is_empty()) {
        let text = "Forbidden: resize of pods with pod-level resources is forbidden when \
                    InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled";
        causes.push(cause("FieldValueForbidden", "", text));
        return causes;
    }
    let renamed = renamed(&new["spec"], &old["spec"]);
    if renamed.is_empty() {
        causes.extend(container_causes(new, old));
    }
    causes.extend(renamed);
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(containers: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "hostname": "h"}})
    }

    /// What is left of a resize, and what is said of it.
    fn resized(old: &Value, containers: Value) -> (Value, Vec<String>) {
        let mut new = old.clone();
        new["spec"]["containers"] = containers;
        new["spec"]["hostname"] = "other".into();
        restrict(&mut new, old);
        let causes = check(&new, old);
        (new, causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect())
    }

    fn container(name: &str, resources: Value) -> Value {
        json!({"name": name, "image": "x", "resources": resources})
    }

    #[test]
    fn only_resources_change() {
        let old = running(json!([container("a", json!({"requests": {"cpu": "1"}}))]));
        let mut wanted = container(
            "a",
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "3", "memory": "1Gi"}}),
        );
        wanted["image"] = "y".into();
        let (new, said) = resized(&old, json!([wanted]));
        assert!(said.is_empty(), "{said:?}");
        let a = &new["spec"]["containers"][0];
        assert_eq!((&a["image"], &new["spec"]["hostname"]), (&json!("x"), &json!("h")));
        assert_eq!(a["resources"]["requests"], json!({"cpu": "2", "memory": "1Gi"}));
    }

    #[test]
    fn what_may_not_change_is_named_as_upstream_names_it() {
        let amounts =
            json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}, "limits": {"cpu": "2"}});
        let old = running(json!([container("a", amounts), container("b", json!({}))]));
        let said = |a: Value| resized(&old, json!([a, container("b", json!({}))])).1;
        assert_eq!(
            said(container("a", json!({"requests": {"cpu": "1", "ephemeral-storage": "1"}}))),
            ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]
        );
        assert_eq!(
            said(container(
                "a",
                json!({"requests": {"cpu": "1", "ephemeral-storage": "2"}, "limits": {"cpu": "2"}})
            )),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        let b = container("b", json!({}));
        assert_eq!(
            resized(&old, json!([b, old["spec"]["containers"][0]])).1,
            [
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
            ]
        );
        let best_effort = running(json!([container("a", json!({}))]));
        assert_eq!(
            resized(&best_effort, json!([container("a", json!({"requests": {"cpu": "1"}}))])).1,
            [
                "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"
            ]
        );
    }

    #[test]
    fn init_containers_that_end_and_nodes_that_cannot_are_refused() {
        let mut old = running(json!([container("a", json!({}))]));
        old["spec"]["initContainers"] = json!([container("i", json!({"requests": {"cpu": "1"}}))]);
        let mut new = old.clone();
        new["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = "2".into();
        restrict(&mut new, &old);
        let causes = check(&new, &old);
        assert_eq!(causes[0].message, NOT_OF_INIT);
        old["status"] = json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]});
        let causes = check(&old, &old);
        assert_eq!(causes[0].message, "Forbidden: Pod running on node without support for resize");
    }
}
