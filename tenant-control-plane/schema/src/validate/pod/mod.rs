//! Pods and pod templates.

mod container;
mod scheduling;
mod sysctls;
mod volume;

use std::collections::HashSet;

use machinery::names;
use serde_json::{Value, json};

use super::faults::{int, is_set, items, text};
use super::labels::check_labels;
use super::{At, Faults, meta};

pub(super) use container::{check_port, check_resources, port_name};

/// Most seconds in a field that upstream holds in 32 bits.
const MAX_SECONDS: i64 = i32::MAX as i64;

/// Checks a Pod.
pub(super) fn pod(pod: &Value, faults: &mut Faults) {
    let spec = &pod["spec"];
    let at = At::new("spec");
    check_spec(spec, &at, faults);
    if !items(spec, "ephemeralContainers").is_empty() && pod["metadata"].get("uid").is_none() {
        faults.forbidden(&at.field("ephemeralContainers"), "cannot be set on create");
    }
}

pub(super) fn pod_template(object: &Value, faults: &mut Faults) {
    check_template(&object["template"], &At::new("template"), faults);
}

/// Checks the template of a workload.
pub(super) fn check_template(template: &Value, at: &At<'_>, faults: &mut Faults) {
    meta::check_below(&template["metadata"], &at.field("metadata"), faults);
    check_spec(&template["spec"], &at.field("spec"), faults);
}

/// Checks that a template's pods restart as its workload needs.
pub(super) fn check_restart_policy(
    template: &Value,
    allowed: &[&str],
    at: &At<'_>,
    faults: &mut Faults,
) {
    let policy = text(&template["spec"], "restartPolicy");
    if !allowed.contains(&policy) {
        let spec = at.field("spec");
        let here = spec.field("restartPolicy");
        if policy.is_empty() {
            faults.required(&here, "");
        } else {
            faults.unsupported(&here, policy, allowed);
        }
    }
}

fn check_spec(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    let volumes = volume::check(spec, at, faults);
    if items(spec, "containers").is_empty() {
        faults.required(&at.field("containers"), "");
    }
    let mut names = HashSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let at_list = at.field(list);
        for (index, container) in items(spec, list).iter().enumerate() {
            let here = at_list.index(index);
            let name = text(container, "name");
            if !name.is_empty() && !names.insert(name) {
                faults.duplicate(&here.field("name"), name);
            }
            container::check(container, list, &volumes, &here, faults);
        }
    }
    for (name, max) in [("activeDeadlineSeconds", MAX_SECONDS)] {
        if let Some(seconds) = int(spec, name) {
            faults.range(&at.field(name), seconds, 1, max);
        }
    }
    if let Some(grace) = int(spec, "terminationGracePeriodSeconds").filter(|g| *g < 0) {
        let here = at.field("terminationGracePeriodSeconds");
        faults.invalid(&here, grace, "must be greater than or equal to 0");
    }
    for (name, rule) in [
        ("hostname", names::dns1123_label as fn(&str) -> _),
        ("subdomain", names::dns1123_label),
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
    ] {
        if !text(spec, name).is_empty() {
            faults.text(&at.field(name), text(spec, name), rule);
        }
    }
    check_labels(spec, "nodeSelector", at, faults);
    scheduling::check(spec, at, faults);
    sysctls::check(spec, at, faults);
    dns(spec, at, faults);
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let list = at.field("hostAliases");
        if text(alias, "ip").parse::<std::net::IpAddr>().is_err() {
            let here = list.index(index);
            faults.invalid(
                &here.field("ip"),
                text(alias, "ip"),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
    if is_set(spec, "hostPID") && is_set(spec, "shareProcessNamespace") {
        faults.invalid(
            &at.field("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
}

fn dns(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    let config = spec.get("dnsConfig").unwrap_or(&Value::Null);
    let servers = items(config, "nameservers");
    let here = at.field("dnsConfig");
    let list = here.field("nameservers");
    if text(spec, "dnsPolicy") == "None" && servers.is_empty() {
        faults.required(&list, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.len() > 3 {
        faults.invalid(&list, json!(servers), "must not have more than 3 nameservers");
    }
    for (index, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            faults.invalid(
                &list.index(index),
                server,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

/// Fields of a pod's spec that may change after its creation.
const FIXED_TEXT: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
previously negative)";

/// Checks what a change of a Pod touches.
pub(super) fn update(new: &Value, old: &Value, faults: &mut Faults) {
    let at = At::new("spec");
    let (before, after) = (&old["spec"], &new["spec"]);
    if before == after {
        return;
    }
    for list in ["containers", "initContainers"] {
        if items(before, list).len() != items(after, list).len() {
            faults.forbidden(&at.field(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(after, before, &at, faults);
    tolerations(after, before, &at, faults);
    let gated = !items(before, "schedulingGates").is_empty();
    gates(after, before, &at, faults);
    let mut allowed = after.clone();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(before, list).iter().enumerate() {
            keep(&mut allowed[list][index], container, "image");
        }
    }
    let mut kept = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if int(before, "terminationGracePeriodSeconds").is_some_and(|g| g < 0)
        && int(after, "terminationGracePeriodSeconds") == Some(1)
    {
        kept.push("terminationGracePeriodSeconds");
    }
    if gated {
        kept.extend(["nodeSelector", "affinity"]);
    }
    for name in kept {
        keep(&mut allowed, before, name);
    }
    if allowed != *before {
        faults.forbidden(&at, FIXED_TEXT);
    }
}

/// Gives `target` the field of `source`, or takes it away where `source` has none.
fn keep(target: &mut Value, source: &Value, name: &str) {
    let Value::Object(fields) = target else { return };
    match source.get(name) {
        Some(value) => drop(fields.insert(name.to_owned(), value.clone())),
        None => drop(fields.remove(name)),
    }
}

fn deadline(after: &Value, before: &Value, at: &At<'_>, faults: &mut Faults) {
    let name = "activeDeadlineSeconds";
    if let Some(old) = int(before, name) {
        match int(after, name) {
            Some(new) if new > old => {
                faults.invalid(
                    &at.field(name),
                    new,
                    "must be less than or equal to previous value",
                );
            }
            None => faults.invalid(
                &at.field(name),
                Value::Null,
                "must not update from a positive integer to nil value",
            ),
            _ => {}
        }
    }
}

fn tolerations(after: &Value, before: &Value, at: &At<'_>, faults: &mut Faults) {
    // The seconds of a toleration may change, all else may only be added.
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        t.as_object_mut().map(|fields| fields.remove("tolerationSeconds"));
        t
    };
    let new: Vec<Value> = items(after, "tolerations").iter().map(without_seconds).collect();
    if items(before, "tolerations").iter().any(|old| !new.contains(&without_seconds(old))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        faults.forbidden(&at.field("tolerations"), why);
    }
}

fn gates(after: &Value, before: &Value, at: &At<'_>, faults: &mut Faults) {
    let old = items(before, "schedulingGates");
    for gate in items(after, "schedulingGates").iter().filter(|gate| !old.contains(gate)) {
        let why = format!(
            "only deletion is allowed, but found new scheduling gate '{}'",
            text(gate, "name")
        );
        faults.forbidden(&at.field("schedulingGates"), &why);
    }
}

#[cfg(test)]
mod tests {
    use machinery::GroupVersionKind;

    use super::*;
    use crate::table::Schema;

    fn gvk() -> GroupVersionKind {
        GroupVersionKind { group: String::new(), version: "v1".into(), kind: "Pod".into() }
    }

    fn faults_of(spec: Value) -> Vec<String> {
        let schema = Schema::get("1.35").expect("table");
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        schema.apply_defaults(&gvk(), &mut pod);
        let causes = schema.validate_create(&gvk(), &pod);
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn the_common_mistakes_are_named_as_upstream_names_them() {
        assert_eq!(faults_of(json!({})), ["spec.containers: Required value"]);
        let none: [&str; 0] = [];
        assert_eq!(
            faults_of(
                json!({"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}]})
            ),
            none
        );
        assert_eq!(
            faults_of(json!({"containers": [{"name": "a"}]})),
            ["spec.containers[0].image: Required value"]
        );
        assert_eq!(
            faults_of(json!({"containers": [
                {"name": "a", "image": "x", "imagePullPolicy": "Sometimes"}, {"name": "a", "image": "y"}]})),
            [
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ]
        );
        let one = |extra: Value| {
            let mut c = json!({"name": "a", "image": "x"});
            c.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
            json!({"containers": [c]})
        };
        assert_eq!(
            faults_of(one(json!({"ports": [{"containerPort": 70000}]}))),
            [
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ]
        );
        assert_eq!(
            faults_of(one(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}))),
            ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
        );
        assert_eq!(
            faults_of(one(
                json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})
            )),
            [
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"
            ]
        );
        assert_eq!(
            faults_of(one(
                json!({"livenessProbe": {"httpGet": {"port": 80}, "exec": {"command": ["x"]}}})
            )),
            [
                "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"
            ]
        );
        assert_eq!(
            faults_of(one(json!({"env": [{"name": ""}]}))),
            ["spec.containers[0].env[0].name: Required value"]
        );
    }

    #[test]
    fn volumes_have_one_source_each() {
        let with = |volume: Value| json!({"containers": [{"name": "a", "image": "x"}], "volumes": [volume]});
        assert_eq!(
            faults_of(with(json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}))),
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]
        );
        assert_eq!(
            faults_of(with(json!({"name": "v", "secret": {}}))),
            ["spec.volumes[0].secret.secretName: Required value"]
        );
    }

    #[test]
    fn a_running_pod_changes_only_its_images_and_a_few_numbers() {
        let schema = Schema::get("1.35").expect("table");
        let mut old = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
        schema.apply_defaults(&gvk(), &mut old);
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("y");
        new["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
        assert!(schema.validate_update(&gvk(), &new, &old).is_empty());
        new["spec"]["hostname"] = json!("h");
        let causes = schema.validate_update(&gvk(), &new, &old);
        assert_eq!((causes.len(), causes[0].field.as_str()), (1, "spec"));
        assert!(causes[0].message.starts_with("Forbidden: pod updates may not change fields"));
    }
}
