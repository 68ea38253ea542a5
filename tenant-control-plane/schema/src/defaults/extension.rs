//! Kinds that configure the cluster rather than run in it.

use serde_json::json;

use super::{Object, child, each, made, or_set, or_set_zero, text};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn network_policy(policy: &mut Object) {
    let Some(spec) = made(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                or_set(port, "protocol", "TCP");
            }
        }
    }
    let types = match spec.contains_key("egress") {
        true => json!(["Ingress", "Egress"]),
        false => json!(["Ingress"]),
    };
    or_set(spec, "policyTypes", types);
}

pub(super) fn ingress_class(class: &mut Object) {
    if let Some(parameters) = child(class, "spec").and_then(|s| child(s, "parameters")) {
        or_set(parameters, "scope", "Cluster");
    }
}

pub(super) fn role_binding(binding: &mut Object) {
    if let Some(role) = child(binding, "roleRef") {
        or_set_zero(role, "apiGroup", RBAC);
    }
    for subject in each(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            or_set(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn storage_class(class: &mut Object) {
    or_set(class, "reclaimPolicy", "Delete");
    or_set(class, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(driver: &mut Object) {
    let Some(spec) = made(driver, "spec") else { return };
    or_set(spec, "attachRequired", true);
    or_set(spec, "podInfoOnMount", false);
    or_set(spec, "storageCapacity", false);
    or_set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    or_set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    or_set(spec, "requiresRepublish", false);
    or_set(spec, "seLinuxMount", false);
}

pub(super) fn priority_class(class: &mut Object) {
    or_set(class, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn mutating_webhooks(configuration: &mut Object) {
    for webhook in each(configuration, "webhooks") {
        or_set(webhook, "reinvocationPolicy", "Never");
        self::webhook(webhook);
    }
}

pub(super) fn validating_webhooks(configuration: &mut Object) {
    for webhook in each(configuration, "webhooks") {
        self::webhook(webhook);
    }
}

fn webhook(webhook: &mut Object) {
    or_set(webhook, "failurePolicy", "Fail");
    or_set(webhook, "timeoutSeconds", 10);
    match_resources(webhook);
    rules(webhook, "rules");
    if let Some(client) = child(webhook, "clientConfig") {
        service_port(client);
    }
}

/// How requests are matched, in webhooks and in admission policies alike.
fn match_resources(owner: &mut Object) {
    or_set(owner, "matchPolicy", "Equivalent");
    or_set(owner, "namespaceSelector", json!({}));
    or_set(owner, "objectSelector", json!({}));
    rules(owner, "resourceRules");
    rules(owner, "excludeResourceRules");
}

fn rules(owner: &mut Object, list: &str) {
    for rule in each(owner, list) {
        or_set(rule, "scope", "*");
    }
}

fn service_port(client: &mut Object) {
    if let Some(service) = child(client, "service") {
        or_set(service, "port", 443);
    }
}

pub(super) fn admission_policy(policy: &mut Object) {
    let Some(spec) = made(policy, "spec") else { return };
    or_set(spec, "failurePolicy", "Fail");
    if let Some(matching) = child(spec, "matchConstraints") {
        match_resources(matching);
    }
}

pub(super) fn admission_policy_binding(binding: &mut Object) {
    if let Some(matching) = child(binding, "spec").and_then(|s| child(s, "matchResources")) {
        match_resources(matching);
    }
}

pub(super) fn custom_resource_definition(definition: &mut Object) {
    let Some(spec) = made(definition, "spec") else { return };
    if let Some(names) = made(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            or_set_zero(names, "singular", kind.to_lowercase());
            or_set_zero(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = made(spec, "conversion") {
        or_set_zero(conversion, "strategy", "None");
        if let Some(client) = child(conversion, "webhook").and_then(|w| child(w, "clientConfig")) {
            service_port(client);
        }
    }
}

pub(super) fn api_service(service: &mut Object) {
    if let Some(spec) = child(service, "spec") {
        service_port(spec);
    }
}

pub(super) fn flow_schema(schema: &mut Object) {
    if let Some(spec) = made(schema, "spec") {
        or_set_zero(spec, "matchingPrecedence", 1000);
    }
}

pub(super) fn priority_level(level: &mut Object) {
    let Some(spec) = made(level, "spec") else { return };
    match text(spec, "type") {
        "Exempt" => {
            if let Some(exempt) = made(spec, "exempt") {
                or_set(exempt, "nominalConcurrencyShares", 0);
                or_set(exempt, "lendablePercent", 0);
            }
        }
        "Limited" => {
            let Some(limited) = made(spec, "limited") else { return };
            or_set(limited, "nominalConcurrencyShares", 30);
            or_set(limited, "lendablePercent", 0);
            if let Some(queuing) = child(limited, "limitResponse").and_then(|r| child(r, "queuing"))
            {
                or_set_zero(queuing, "handSize", 8);
                or_set_zero(queuing, "queues", 64);
                or_set_zero(queuing, "queueLengthLimit", 50);
            }
        }
        _ => {}
    }
}

pub(super) fn token_request(request: &mut Object) {
    if let Some(spec) = made(request, "spec") {
        or_set(spec, "expirationSeconds", 3600);
    }
}

pub(super) fn resource_claim(claim: &mut Object) {
    let requests = child(claim, "spec").and_then(|s| child(s, "devices"));
    let Some(devices) = requests else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = child(request, "exactly") {
            device_request(exactly);
        }
        for alternative in each(request, "firstAvailable") {
            device_request(alternative);
        }
    }
}

fn device_request(request: &mut Object) {
    or_set(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        or_set_zero(request, "count", 1);
    }
}

pub(super) fn resource_claim_template(template: &mut Object) {
    if let Some(claim) = child(template, "spec") {
        resource_claim(claim);
    }
}
