//! Pods, and the pod templates inside other kinds.

use serde_json::{Value, json};

use super::{Object, child, each, made, or_set, or_set_zero, text};

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn pod(pod: &mut Object) {
    let Some(spec) = made(pod, "spec") else { return };
    pod_spec(spec);
    or_set(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    // Requests of the whole pod follow its limits in the same way.
    requests_from_limits(spec);
}

pub(super) fn pod_template_object(object: &mut Object) {
    template(object);
}

/// Completes `template.spec` of a workload.
pub(super) fn template(spec: &mut Object) {
    if let Some(pod) = made(spec, "template").and_then(|t| made(t, "spec")) {
        pod_spec(pod);
    }
}

/// Completes a pod's spec, in a Pod or in a template.
pub fn pod_spec(spec: &mut Object) {
    or_set(spec, "dnsPolicy", "ClusterFirst");
    or_set(spec, "restartPolicy", "Always");
    or_set(spec, "schedulerName", "default-scheduler");
    or_set(spec, "terminationGracePeriodSeconds", 30);
    or_set(spec, "securityContext", json!({}));
    service_account(spec);
    for volume in each(spec, "volumes") {
        super::core::volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            self::container(container);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`: both are always written.
fn service_account(spec: &mut Object) {
    let name = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (new, _) => new.to_owned(),
    };
    spec.insert("serviceAccountName".to_owned(), name.clone().into());
    spec.insert("serviceAccount".to_owned(), name.into());
}

fn container(container: &mut Object) {
    let policy = image_pull_policy(text(container, "image"));
    or_set(container, "imagePullPolicy", policy);
    or_set(container, "terminationMessagePath", "/dev/termination-log");
    or_set(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        or_set(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(field) = child(variable, "valueFrom").and_then(|from| child(from, "fieldRef")) {
            or_set(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, name) {
            or_set_zero(probe, "timeoutSeconds", 1);
            or_set_zero(probe, "periodSeconds", 10);
            or_set_zero(probe, "successThreshold", 1);
            or_set_zero(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = child(probe, "grpc") {
                or_set(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = child(lifecycle, hook) {
                http_get(handler);
            }
        }
    }
}

fn http_get(handler: &mut Object) {
    if let Some(get) = child(handler, "httpGet") {
        or_set_zero(get, "path", "/");
        or_set_zero(get, "scheme", "HTTP");
    }
}

fn requests_from_limits(owner: &mut Object) {
    let Some(resources) = child(owner, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = made(resources, "requests") {
        for (name, amount) in limits {
            or_set(requests, &name, amount);
        }
    }
}

fn host_ports(container: &mut Object) {
    for port in each(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            or_set_zero(port, "hostPort", number);
        }
    }
}

/// `Always` for an image whose tag is `latest`, given or implied, else `IfNotPresent`.
pub fn image_pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to the registry's port.
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match (tag, digest) {
        (Some("latest"), _) | (None, false) => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_tag_is_pulled_always() {
        for image in ["nginx", "nginx:latest", "reg:5000/a/nginx", "reg:5000/nginx:latest"] {
            assert_eq!(image_pull_policy(image), "Always", "{image}");
        }
        for image in ["nginx:1.27", "reg:5000/nginx:1", "nginx@sha256:0123", "a/b:v1@sha256:01"] {
            assert_eq!(image_pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
