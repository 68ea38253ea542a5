//! What may not change once it is set.

use serde_json::Value;

use super::faults::{int, is_set, text};
use super::{At, Faults};

const IMMUTABLE: &str = "field is immutable";

/// Complains when a part of the object differs.
fn fixed(new: &Value, old: &Value, pointer: &str, faults: &mut Faults) {
    let (after, before) = (new.pointer(pointer), old.pointer(pointer));
    if after != before {
        let path = pointer.trim_start_matches('/').replace('/', ".");
        faults.invalid(&At::new(&path), after.cloned().unwrap_or_default(), IMMUTABLE);
    }
}

/// Complains when anything but these parts of the spec differs.
fn fixed_except(new: &Value, old: &Value, but: &[&str], why: &str, faults: &mut Faults) {
    let stripped = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Value::Object(fields) = &mut spec {
            fields.retain(|name, _| !but.contains(&name.as_str()));
        }
        spec
    };
    if stripped(new) != stripped(old) {
        faults.forbidden(&At::new("spec"), why);
    }
}

pub(super) fn selector(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/spec/selector", faults);
}

pub(super) fn stateful_set(new: &Value, old: &Value, faults: &mut Faults) {
    let changeable = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
        'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
        'minReadySeconds' are forbidden";
    fixed_except(new, old, &changeable, why, faults);
}

pub(super) fn revision(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/data", faults);
}

pub(super) fn job(new: &Value, old: &Value, faults: &mut Faults) {
    let is_indexed = text(&new["spec"], "completionMode") == "Indexed";
    // An indexed job grows and shrinks when completions and parallelism change together.
    let is_elastic =
        is_indexed && int(&new["spec"], "completions") == int(&new["spec"], "parallelism");
    if !is_elastic {
        fixed(new, old, "/spec/completions", faults);
    }
    for part in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        fixed(new, old, &format!("/spec/{part}"), faults);
    }
    let is_waiting = is_set(&old["spec"], "suspend") && old.pointer("/status/startTime").is_none();
    if !is_waiting {
        fixed(new, old, "/spec/template", faults);
        return;
    }
    // Before a suspended job has started, a queueing controller may say where its pods go.
    let without_placement = |object: &Value| {
        let mut template = object["spec"]["template"].clone();
        for (part, names) in [
            ("/spec", &["nodeSelector", "affinity", "tolerations", "schedulingGates"][..]),
            ("/metadata", &["labels", "annotations"][..]),
        ] {
            if let Some(Value::Object(fields)) = template.pointer_mut(part) {
                fields.retain(|name, _| !names.contains(&name.as_str()));
            }
        }
        template
    };
    if without_placement(new) != without_placement(old) {
        faults.invalid(&At::new("spec.template"), new["spec"]["template"].clone(), IMMUTABLE);
    }
}

pub(super) fn service(new: &Value, old: &Value, faults: &mut Faults) {
    let (after, before) = (&new["spec"], &old["spec"]);
    if text(before, "type") == "ExternalName" || text(after, "type") == "ExternalName" {
        return;
    }
    let address = text(before, "clusterIP");
    if !address.is_empty() && text(after, "clusterIP") != address {
        let why = "may not change once set";
        faults.invalid(&At::new("spec.clusterIPs[0]"), text(after, "clusterIP"), why);
    }
}

pub(super) fn volume(new: &Value, old: &Value, faults: &mut Faults) {
    let changeable = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let source = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Value::Object(fields) = &mut spec {
            fields.retain(|name, _| !changeable.contains(&name.as_str()));
        }
        spec
    };
    if source(new) != source(old) {
        let why = "spec.persistentvolumesource is immutable after creation";
        faults.forbidden(&At::new("spec.persistentvolumesource"), why);
    }
    fixed(new, old, "/spec/volumeMode", faults);
}

pub(super) fn claim(new: &Value, old: &Value, faults: &mut Faults) {
    let mut changeable = vec!["resources", "volumeAttributesClassName"];
    // Binding gives an unbound claim its volume, and a class where none was chosen.
    if text(&old["spec"], "volumeName").is_empty() {
        changeable.push("volumeName");
    }
    if old.pointer("/spec/storageClassName").is_none() {
        changeable.push("storageClassName");
    }
    let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    fixed_except(new, old, &changeable, why, faults);
}

fn sealed(new: &Value, old: &Value, parts: &[&str], faults: &mut Faults) {
    if !is_set(old, "immutable") {
        return;
    }
    for part in parts.iter().chain(&["immutable"]) {
        if new.get(part) != old.get(part) {
            faults.forbidden(&At::new(part), "field is immutable when `immutable` is set");
        }
    }
}

pub(super) fn config_map(new: &Value, old: &Value, faults: &mut Faults) {
    sealed(new, old, &["data", "binaryData"], faults);
}

pub(super) fn secret(new: &Value, old: &Value, faults: &mut Faults) {
    sealed(new, old, &["data"], faults);
    fixed(new, old, "/type", faults);
}

pub(super) fn storage_class(new: &Value, old: &Value, faults: &mut Faults) {
    for part in ["parameters", "provisioner", "reclaimPolicy"] {
        if new.get(part) != old.get(part) {
            faults.forbidden(&At::new(part), &format!("updates to {part} are forbidden."));
        }
    }
    fixed(new, old, "/volumeBindingMode", faults);
}

pub(super) fn endpoint_slice(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/addressType", faults);
}

pub(super) fn ingress_class(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/spec/controller", faults);
}

pub(super) fn runtime_class(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/handler", faults);
}

pub(super) fn priority_class(new: &Value, old: &Value, faults: &mut Faults) {
    if new.get("value") != old.get("value") {
        faults.forbidden(&At::new("value"), "may not be changed in an update.");
    }
    fixed(new, old, "/preemptionPolicy", faults);
}

pub(super) fn role_binding(new: &Value, old: &Value, faults: &mut Faults) {
    if new.get("roleRef") != old.get("roleRef") {
        faults.invalid(&At::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
    }
}

pub(super) fn device_claim(new: &Value, old: &Value, faults: &mut Faults) {
    fixed(new, old, "/spec", faults);
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;
    use serde_json::json;

    use super::*;
    use crate::table::Schema;

    fn changed(group: &str, kind: &str, new: Value, old: Value) -> Vec<String> {
        let schema = Schema::get("1.35").expect("table");
        let gvk = GroupVersionKind { group: group.into(), version: "v1".into(), kind: kind.into() };
        let causes = schema.validate_update(&gvk, &new, &old);
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn a_selector_and_a_role_reference_stay() {
        let with = |app: &str| {
            json!({"spec": {"selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": app}},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "a", "image": "x"}]}}}})
        };
        assert_eq!(
            changed("apps", "Deployment", with("b"), with("a")),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]
        );
        let binding = |name: &str| json!({"kind": "RoleBinding", "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}});
        let found = changed("rbac.authorization.k8s.io", "RoleBinding", binding("b"), binding("a"));
        assert!(
            found[0].starts_with("roleRef: Invalid value")
                && found[0].ends_with("cannot change roleRef"),
            "{found:?}"
        );
    }

    #[test]
    fn a_sealed_config_map_stays() {
        let old = json!({"kind": "ConfigMap", "immutable": true, "data": {"a": "1"}});
        let new = json!({"kind": "ConfigMap", "immutable": true, "data": {"a": "2"}});
        assert_eq!(
            changed("", "ConfigMap", new, old),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
    }
}
