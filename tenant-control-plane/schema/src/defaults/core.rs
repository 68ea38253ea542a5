//! Volumes, services, storage and the smaller core kinds.

use serde_json::{Value, json};

use super::pod::image_pull_policy;
use super::{Object, child, each, made, or_set, or_set_zero, text};

/// Mode 0644 in decimal, as JSON has it.
const FILE_MODE: i64 = 0o644;
/// Three hours in seconds.
const CLIENT_IP_TIMEOUT: i64 = 10_800;

/// A pod's volume: an `emptyDir` when it names no source.
pub(super) fn volume(volume: &mut Object) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["configMap", "secret", "projected"] {
        if let Some(source) = child(volume, source) {
            or_set(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = child(volume, "downwardAPI") {
        or_set(source, "defaultMode", FILE_MODE);
        downward_items(source);
    }
    if let Some(projected) = child(volume, "projected") {
        for source in each(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                or_set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = child(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(path) = child(volume, "hostPath") {
        or_set(path, "type", "");
    }
    if let Some(image) = child(volume, "image") {
        let policy = image_pull_policy(text(image, "reference"));
        or_set(image, "pullPolicy", policy);
    }
    if let Some(claim) = child(volume, "ephemeral")
        .and_then(|e| child(e, "volumeClaimTemplate"))
        .and_then(|t| child(t, "spec"))
    {
        or_set(claim, "volumeMode", "Filesystem");
    }
}

fn downward_items(source: &mut Object) {
    for item in each(source, "items") {
        if let Some(field) = child(item, "fieldRef") {
            or_set(field, "apiVersion", "v1");
        }
    }
}

pub(super) fn service(service: &mut Object) {
    let Some(spec) = made(service, "spec") else { return };
    or_set(spec, "sessionAffinity", "None");
    or_set(spec, "type", "ClusterIP");
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            if let Some(ip) = made(spec, "sessionAffinityConfig").and_then(|c| made(c, "clientIP"))
            {
                or_set(ip, "timeoutSeconds", CLIENT_IP_TIMEOUT);
            }
        }
        _ => {
            spec.remove("sessionAffinityConfig");
        }
    }
    for port in each(spec, "ports") {
        or_set(port, "protocol", "TCP");
        if let Some(number) = port.get("port").cloned() {
            or_set_zero(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let has_external_ips = spec.get("externalIPs").is_some();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && has_external_ips)
    {
        or_set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        or_set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        or_set(spec, "allocateLoadBalancerNodePorts", true);
    }
    if let Some(balancer) = child(service, "status").and_then(|s| child(s, "loadBalancer")) {
        for ingress in each(balancer, "ingress") {
            if !text(ingress, "ip").is_empty() {
                or_set(ingress, "ipMode", "VIP");
            }
        }
    }
}

pub(super) fn endpoints(endpoints: &mut Object) {
    for subset in each(endpoints, "subsets") {
        for port in each(subset, "ports") {
            or_set(port, "protocol", "TCP");
        }
    }
}

pub(super) fn endpoint_slice(slice: &mut Object) {
    for port in each(slice, "ports") {
        or_set(port, "name", "");
        or_set(port, "protocol", "TCP");
    }
}

pub(super) fn secret(secret: &mut Object) {
    or_set(secret, "type", "Opaque");
}

pub(super) fn namespace(namespace: &mut Object) {
    if let Some(status) = made(namespace, "status") {
        or_set(status, "phase", "Active");
    }
    let Some(meta) = made(namespace, "metadata") else { return };
    let name = text(meta, "name").to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = made(meta, "labels") {
        or_set(labels, "kubernetes.io/metadata.name", name);
    }
}

pub(super) fn node(node: &mut Object) {
    let Some(status) = child(node, "status") else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        or_set(status, "allocatable", capacity);
    }
}

pub(super) fn persistent_volume(volume: &mut Object) {
    if let Some(status) = made(volume, "status") {
        or_set(status, "phase", "Pending");
    }
    let Some(spec) = made(volume, "spec") else { return };
    or_set(spec, "persistentVolumeReclaimPolicy", "Retain");
    or_set(spec, "volumeMode", "Filesystem");
    if let Some(path) = child(spec, "hostPath") {
        or_set(path, "type", "");
    }
}

pub(super) fn persistent_volume_claim(claim: &mut Object) {
    if let Some(status) = made(claim, "status") {
        or_set(status, "phase", "Pending");
    }
    if let Some(spec) = made(claim, "spec") {
        or_set(spec, "volumeMode", "Filesystem");
    }
}

/// For containers, a maximum is also the default limit, a default limit the default request, and
/// a minimum the default request of what has no other.
pub(super) fn limit_range(range: &mut Object) {
    let Some(spec) = child(range, "spec") else { return };
    for item in each(spec, "limits") {
        if text(item, "type") != "Container" {
            continue;
        }
        for (from, to) in
            [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
        {
            let Some(amounts) = item.get(from).and_then(Value::as_object).cloned() else {
                continue;
            };
            if let Some(target) = made(item, to) {
                for (name, amount) in amounts {
                    or_set(target, &name, amount);
                }
            }
        }
    }
}
