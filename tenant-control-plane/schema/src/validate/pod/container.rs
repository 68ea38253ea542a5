//! One container of a pod.

use std::collections::{HashMap, HashSet};

use machinery::{Quantity, names};
use serde_json::Value;

use super::super::faults::{entries, int, is_set, items, text};
use super::super::{At, Faults};

/// Checks a container of one of the pod's lists. `volumes` holds the names of the pod's volumes,
/// and whether each is a claim (which may be used as a block device).
pub(super) fn check(
    container: &Value,
    list: &str,
    volumes: &HashMap<&str, bool>,
    at: &At<'_>,
    faults: &mut Faults,
) {
    let name = text(container, "name");
    if !name.is_empty() {
        faults.text(&at.field("name"), name, names::dns1123_label);
    }
    let image = text(container, "image");
    if image.is_empty() {
        faults.required(&at.field("image"), "");
    } else if image.trim() != image {
        faults.invalid(&at.field("image"), image, "must not have leading or trailing whitespace");
    }
    ports(container, at, faults);
    environment(container, at, faults);
    mounts(container, volumes, at, faults);
    if let Some(resources) = container.get("resources") {
        check_resources(resources, &at.field("resources"), faults);
    }
    let is_sidecar = text(container, "restartPolicy") == "Always";
    for probe_name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(value) = container.get(probe_name) else { continue };
        let here = at.field(probe_name);
        if list == "initContainers" && !is_sidecar {
            faults.forbidden(
                &here,
                "may not be set for init containers without restartPolicy=Always",
            );
        } else if list == "ephemeralContainers" {
            faults.forbidden(&here, "cannot be set for an Ephemeral Container");
        } else {
            probe(value, probe_name, &here, faults);
        }
    }
    if let Some(lifecycle) = container.get("lifecycle") {
        let here = at.field("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get(hook) {
                self::handler(
                    handler,
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                    &here.field(hook),
                    faults,
                );
            }
        }
    }
    security(container, at, faults);
}

fn security(container: &Value, at: &At<'_>, faults: &mut Faults) {
    let Some(context) = container.get("securityContext") else { return };
    let here = at.field("securityContext");
    for name in ["runAsUser", "runAsGroup"] {
        if let Some(id) = int(context, name) {
            faults.range(&here.field(name), id, 0, i64::from(i32::MAX));
        }
    }
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false))
        && is_set(context, "privileged")
    {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        faults.invalid(&here, context.clone(), why);
    }
}

fn ports(container: &Value, at: &At<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    let list = at.field("ports");
    for (index, port) in items(container, "ports").iter().enumerate() {
        let here = list.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            port_name(name, &here.field("name"), faults);
            if !seen.insert(name) {
                faults.duplicate(&here.field("name"), name);
            }
        }
        match int(port, "containerPort") {
            None | Some(0) => faults.required(&here.field("containerPort"), ""),
            Some(number) => faults.range(&here.field("containerPort"), number, 1, 65535),
        }
        if let Some(number) = int(port, "hostPort").filter(|n| *n != 0) {
            faults.range(&here.field("hostPort"), number, 1, 65535);
        }
    }
}

/// RFC 6335: what a port may be called.
pub(crate) fn port_name(name: &str, at: &At<'_>, faults: &mut Faults) {
    let mut complain = |why: &str| faults.invalid(at, name, why);
    if name.len() > 15 {
        complain("must be no more than 15 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        complain("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        complain("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        complain("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        complain("must not begin or end with a hyphen");
    }
}

fn environment(container: &Value, at: &At<'_>, faults: &mut Faults) {
    let list = at.field("env");
    for (index, variable) in items(container, "env").iter().enumerate() {
        let here = list.index(index);
        let name = text(variable, "name");
        if !name.is_empty() && !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
            faults.invalid(&here.field("name"), name, why);
        }
        let Some(from) = variable.get("valueFrom") else { continue };
        let source = here.field("valueFrom");
        match from.as_object().map_or(0, serde_json::Map::len) {
            0 => faults.invalid(&source, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"),
            1 if !text(variable, "value").is_empty() => {
                faults.invalid(&source, "", "may not be specified when `value` is not empty");
            }
            1 => {}
            _ => faults.invalid(&source, "", "may not have more than one field specified at a time"),
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if from.get(reference).is_some_and(|r| text(r, "name").is_empty()) {
                let here = source.field(reference);
                faults.required(&here.field("name"), "");
            }
        }
    }
    let list = at.field("envFrom");
    for (index, from) in items(container, "envFrom").iter().enumerate() {
        let here = list.index(index);
        match (from.get("configMapRef"), from.get("secretRef")) {
            (None, None) => {
                faults.invalid(&here, "", "must specify one of: `configMapRef` or `secretRef`")
            }
            (Some(_), Some(_)) => {
                faults.invalid(&here, "", "may not have more than one field specified at a time")
            }
            _ => {}
        }
    }
}

fn mounts(container: &Value, volumes: &HashMap<&str, bool>, at: &At<'_>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    let list = at.field("volumeMounts");
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let here = list.index(index);
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if !name.is_empty() && !volumes.contains_key(name) {
            faults.not_found(&here.field("name"), name);
        }
        if !path.is_empty() && !seen.insert(path) {
            faults.invalid(&here.field("mountPath"), path, "must be unique");
        }
        for sub in ["subPath", "subPathExpr"] {
            let value = text(mount, sub);
            if value.starts_with('/') {
                faults.invalid(&here.field(sub), value, "must be a relative path");
            } else if value.split('/').any(|part| part == "..") {
                faults.invalid(&here.field(sub), value, "must not contain '..'");
            }
        }
    }
    let list = at.field("volumeDevices");
    for (index, device) in items(container, "volumeDevices").iter().enumerate() {
        let here = list.index(index);
        let name = text(device, "name");
        match volumes.get(name) {
            None if !name.is_empty() => faults.not_found(&here.field("name"), name),
            Some(false) => {
                let why = "can only use volume source type of PersistentVolumeClaim, Ephemeral, or CSI for block mode";
                faults.invalid(&here.field("name"), name, why);
            }
            _ => {}
        }
    }
}

/// Resources whose request must equal their limit, since they cannot be overcommitted.
fn is_overcommitted(name: &str) -> bool {
    !name.starts_with("hugepages-") && !name.contains('/')
}

/// Checks requests and limits of a container, a pod or a claim.
pub(crate) fn check_resources(resources: &Value, at: &At<'_>, faults: &mut Faults) {
    for side in ["limits", "requests"] {
        let list = at.field(side);
        for (name, amount) in entries(resources, side) {
            faults.text(&list.key(name), name, names::qualified_name);
            if Quantity::from_json(amount).is_ok_and(Quantity::is_negative) {
                faults.invalid(
                    &list.key(name),
                    amount.clone(),
                    "must be greater than or equal to 0",
                );
            }
        }
    }
    for (name, amount) in entries(resources, "requests") {
        let limit = resources.get("limits").and_then(|l| l.get(name));
        let limit = limit.and_then(|l| Some((l, Quantity::from_json(l).ok()?)));
        let (Some((written, limit)), Ok(request)) = (limit, Quantity::from_json(amount)) else {
            continue;
        };
        let written = written.as_str().map_or_else(|| written.to_string(), str::to_owned);
        if request != limit && !is_overcommitted(name) {
            let why = format!("must be equal to {name} limit of {written}");
            faults.invalid(&at.field("requests"), amount.clone(), &why);
        } else if request > limit {
            let why = format!("must be less than or equal to {name} limit of {written}");
            faults.invalid(&at.field("requests"), amount.clone(), &why);
        }
    }
}

fn probe(probe: &Value, name: &str, at: &At<'_>, faults: &mut Faults) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], at, faults);
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        faults.not_negative(probe, number, at);
    }
    if let Some(wanted) =
        int(probe, "successThreshold").filter(|n| *n != 1 && name != "readinessProbe")
    {
        faults.invalid(&at.field("successThreshold"), wanted, "must be 1");
    }
    if let Some(grace) = int(probe, "terminationGracePeriodSeconds").filter(|g| *g <= 0) {
        faults.invalid(&at.field("terminationGracePeriodSeconds"), grace, "must be greater than 0");
    }
}

fn handler(handler: &Value, kinds: &[&str], at: &At<'_>, faults: &mut Faults) {
    let mut found = kinds.iter().filter(|kind| handler.get(**kind).is_some());
    if found.next().is_none() {
        faults.required(at, "must specify a handler type");
    }
    for kind in found {
        faults.forbidden(&at.field(kind), "may not specify more than 1 handler type");
    }
    if handler.get("exec").is_some_and(|exec| items(exec, "command").is_empty()) {
        let exec = at.field("exec");
        faults.required(&exec.field("command"), "");
    }
    for kind in ["httpGet", "tcpSocket"] {
        if let Some(port) = handler.get(kind).and_then(|h| h.get("port")) {
            let here = at.field(kind);
            check_port(port, &here.field("port"), faults);
        }
    }
    if let Some(port) = handler.get("grpc").and_then(|grpc| int(grpc, "port")) {
        let here = at.field("grpc");
        faults.range(&here.field("port"), port, 1, 65535);
    }
}

/// A port as a number or by name.
pub(crate) fn check_port(port: &Value, at: &At<'_>, faults: &mut Faults) {
    match port {
        Value::String(name) => port_name(name, at, faults),
        other => faults.range(at, other.as_i64().unwrap_or_default(), 1, 65535),
    }
}
