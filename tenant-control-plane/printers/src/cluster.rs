//! Nodes, namespaces, configuration, events and certificates.

use jiff::Timestamp;
use serde_json::Value;

use crate::cell::{self, NONE, UNKNOWN, int_at, joined_or, len_at, list_at, str_at};
use crate::duration::human_duration;
use crate::{AGE, Column, NAME, number, text, wide};

pub(crate) const NODE: &[Column] = &[
    NAME,
    text("Status"),
    text("Roles"),
    AGE,
    text("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub(crate) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match cell::condition(node, "Ready") {
        Some(ready) if ready["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| -> Value {
        let found = list_at(node, "/status/addresses").iter().find(|a| a["type"] == kind);
        found.map_or(NONE, |a| str_at(a, "/address")).into()
    };
    let info = |name: &str| cell::text_or(node, &format!("/status/nodeInfo/{name}"), UNKNOWN);
    vec![
        cell::name(node),
        status.into(),
        joined_or(&roles(node), ",", NONE).into(),
        cell::age(node, now),
        cell::text(node, "/status/nodeInfo/kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// Roles are labels: `node-role.kubernetes.io/<role>`, or the older `kubernetes.io/role: <role>`.
fn roles(node: &Value) -> Vec<String> {
    let Some(Value::Object(labels)) = node.pointer("/metadata/labels") else { return Vec::new() };
    let mut roles: Vec<String> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role.to_owned()),
            None => value.as_str().filter(|_| key == "kubernetes.io/role").map(str::to_owned),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort();
    roles.dedup();
    roles
}

pub(crate) const NAMESPACE: &[Column] = &[NAME, text("Status"), AGE];

pub(crate) fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    let phase = cell::text(namespace, "/status/phase");
    vec![cell::name(namespace), phase, cell::age(namespace, now)]
}

pub(crate) const CONFIG_MAP: &[Column] = &[NAME, number("Data"), AGE];

pub(crate) fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    let entries = len_at(map, "/data") + len_at(map, "/binaryData");
    vec![cell::name(map), entries.into(), cell::age(map, now)]
}

pub(crate) const SECRET: &[Column] = &[NAME, text("Type"), number("Data"), AGE];

pub(crate) fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    let kind = cell::text(secret, "/type");
    vec![cell::name(secret), kind, len_at(secret, "/data").into(), cell::age(secret, now)]
}

pub(crate) const SERVICE_ACCOUNT: &[Column] = &[NAME, number("Secrets"), AGE];

pub(crate) fn service_account(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(account), len_at(account, "/secrets").into(), cell::age(account, now)]
}

pub(crate) const EVENT: &[Column] = &[
    text("Last Seen"),
    text("Type"),
    text("Reason"),
    text("Object"),
    wide("Subobject"),
    wide("Source"),
    text("Message"),
    wide("First Seen"),
    wide("Count"),
    Column { priority: 1, ..NAME },
];

/// Events of both groups: the newer one has other names for the same things.
pub(crate) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let first_of = |pointers: &[&str]| pointers.iter().find_map(|p| cell::since(event, p, now));
    let first = first_of(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"])
        .unwrap_or_else(|| UNKNOWN.to_owned());
    let last =
        first_of(&["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp"])
            .unwrap_or_else(|| first.clone());
    let object = if event.get("regarding").is_some() {
        &event["regarding"]
    } else {
        &event["involvedObject"]
    };
    let target = match str_at(object, "/name") {
        "" => str_at(object, "/kind").to_lowercase(),
        name => format!("{}/{name}", str_at(object, "/kind").to_lowercase()),
    };
    let count = ["/series/count", "/count", "/deprecatedCount"]
        .iter()
        .map(|p| int_at(event, p))
        .find(|count| *count > 0)
        .unwrap_or(1);
    let message = [str_at(event, "/message"), str_at(event, "/note")].concat();
    vec![
        last.into(),
        cell::text(event, "/type"),
        cell::text(event, "/reason"),
        target.into(),
        cell::text(object, "/fieldPath"),
        source(event).into(),
        message.trim().into(),
        first.into(),
        count.into(),
        cell::name(event),
    ]
}

fn source(event: &Value) -> String {
    let old = ["/source", "/deprecatedSource"].iter().find_map(|p| event.pointer(p));
    let (component, host) = match old.map(|s| (str_at(s, "/component"), str_at(s, "/host"))) {
        Some((component, host)) if !component.is_empty() => (component, host),
        _ => {
            let controller =
                [str_at(event, "/reportingComponent"), str_at(event, "/reportingController")];
            let controller = controller.into_iter().find(|c| !c.is_empty()).unwrap_or_default();
            (controller, str_at(event, "/reportingInstance"))
        }
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(crate) const COMPONENT: &[Column] = &[NAME, text("Status"), text("Message"), text("Error")];

pub(crate) fn component(component: &Value, _now: Timestamp) -> Vec<Value> {
    let healthy = list_at(component, "/conditions").iter().find(|c| c["type"] == "Healthy");
    let status = match healthy.map(|c| str_at(c, "/status")) {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    };
    let part = |name: &str| healthy.map_or("", |c| str_at(c, name)).to_owned();
    vec![cell::name(component), status.into(), part("/message").into(), part("/error").into()]
}

pub(crate) const LEASE: &[Column] = &[NAME, text("Holder"), AGE];

pub(crate) fn lease(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(lease), cell::text(lease, "/spec/holderIdentity"), cell::age(lease, now)]
}

pub(crate) const RUNTIME_CLASS: &[Column] = &[NAME, text("Handler"), AGE];

pub(crate) fn runtime_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(class), cell::text(class, "/handler"), cell::age(class, now)]
}

pub(crate) const PRIORITY: &[Column] =
    &[NAME, number("Value"), text("Global-Default"), AGE, text("PreemptionPolicy")];

pub(crate) fn priority(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(class),
        cell::number(class, "/value"),
        (class["globalDefault"] == true).into(),
        cell::age(class, now),
        cell::text_or(class, "/preemptionPolicy", "PreemptLowerPriority"),
    ]
}

pub(crate) const API_SERVICE: &[Column] = &[NAME, text("Service"), text("Available"), AGE];

pub(crate) fn api_service(service: &Value, now: Timestamp) -> Vec<Value> {
    let target = match service.pointer("/spec/service") {
        Some(target) => format!("{}/{}", str_at(target, "/namespace"), str_at(target, "/name")),
        None => "Local".to_owned(),
    };
    let available = match cell::condition(service, "Available") {
        Some(c) if c["status"] == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", str_at(c, "/status"), str_at(c, "/reason")),
        None => "Unknown".to_owned(),
    };
    vec![cell::name(service), target.into(), available.into(), cell::age(service, now)]
}

pub(crate) const CSR: &[Column] = &[
    NAME,
    AGE,
    text("SignerName"),
    text("Requestor"),
    text("RequestedDuration"),
    text("Condition"),
];

pub(crate) fn csr(csr: &Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| cell::condition(csr, kind).is_some();
    let mut condition = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !str_at(csr, "/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    let duration =
        csr.pointer("/spec/expirationSeconds").and_then(Value::as_i64).map(human_duration);
    vec![
        cell::name(csr),
        cell::age(csr, now),
        cell::text_or(csr, "/spec/signerName", NONE),
        cell::text(csr, "/spec/username"),
        duration.unwrap_or_else(|| NONE.to_owned()).into(),
        condition.into(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_shows_readiness_and_roles() {
        let object = json!({
            "metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.1.5"}]}});
        let row = node(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..3], [json!("Ready,SchedulingDisabled"), json!("edge,worker")]);
        assert_eq!(row[5..7], [json!("10.0.1.5"), json!("<none>")]);
    }

    #[test]
    fn both_kinds_of_events_look_the_same() {
        let now = Timestamp::from_second(60).expect("in range");
        let old = json!({"lastTimestamp": "1970-01-01T00:00:30Z", "firstTimestamp": "1970-01-01T00:00:00Z", "count": 2,
            "type": "Normal", "reason": "Pulled", "message": "done\n", "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "p"}});
        let row = event(&old, now);
        assert_eq!(row[0], "30s");
        assert_eq!(row[3], "pod/p");
        assert_eq!(row[5..9], [json!("kubelet, n1"), json!("done"), json!("60s"), json!(2)]);
        let new = json!({"eventTime": "1970-01-01T00:00:10.000000Z", "note": "x", "reportingController": "sched",
            "regarding": {"kind": "Pod", "name": "p"}});
        let row = event(&new, now);
        assert_eq!(
            (&row[0], &row[3], &row[5], &row[8]),
            (&json!("50s"), &json!("pod/p"), &json!("sched"), &json!(1))
        );
    }
}
