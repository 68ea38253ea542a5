//! The objects that every cluster has beside its RBAC policy.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ensure::config_map;
use crate::api::Api;

/// Objects to be created when they are missing.
pub fn all(api: &Arc<Api>) -> Vec<Value> {
    let mut objects = vec![
        priority_class("system-cluster-critical", 2_000_000_000),
        priority_class("system-node-critical", 2_000_001_000),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [api.config.service_cidr.to_string()]},
        }),
        kubernetes_service(api),
    ];
    objects.extend(api_services(api));
    objects
}

/// Every group and version that this server serves itself.
fn api_services(api: &Arc<Api>) -> Vec<Value> {
    let table = api.table.snapshot();
    let built_in = table.rows().iter().filter(|r| !r.custom);
    let mut served: Vec<(String, String)> = Vec::new();
    for row in built_in {
        let pair = (row.group.to_string(), row.version.to_string());
        if !served.contains(&pair) {
            served.push(pair);
        }
    }
    let count = served.len();
    let service = |(at, (group, version)): (usize, (String, String))| {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": 17_000 + 10 * (count - at),
                "versionPriority": 15,
            },
        })
    };
    served.into_iter().enumerate().map(service).collect()
}

fn priority_class(name: &str, value: i64) -> Value {
    let purpose = name.trim_start_matches("system-").trim_end_matches("-critical");
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name}, "value": value,
        "preemptionPolicy": "PreemptLowerPriority",
        "description": format!("For system pods that the whole {purpose} depends on."),
    })
}

/// `default/kubernetes`: this API inside the cluster.
fn kubernetes_service(api: &Arc<Api>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": api.services.first_ip().to_string(),
            "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
            "ports": [{
                "name": "https", "protocol": "TCP", "port": 443,
                "targetPort": api.config.secure_port,
            }],
        },
    })
}

/// What extension API servers and delegated authentication need to know.
pub fn authentication_config(api: &Arc<Api>) -> Value {
    let flags = &api.config.flags;
    let mut data = json!({});
    let file = |path: &Option<std::path::PathBuf>| {
        path.as_ref().and_then(|p| std::fs::read_to_string(p).ok())
    };
    if let Some(pem) = file(&flags.client_ca_file) {
        data["client-ca-file"] = pem.into();
    }
    if let Some(pem) = file(&flags.requestheader_client_ca_file) {
        data["requestheader-client-ca-file"] = pem.into();
        let list = |items: &[String]| json!(items).to_string();
        data["requestheader-allowed-names"] = list(&flags.requestheader_allowed_names).into();
        data["requestheader-username-headers"] = list(&flags.requestheader_username_headers).into();
        data["requestheader-group-headers"] = list(&flags.requestheader_group_headers).into();
        data["requestheader-extra-headers-prefix"] =
            list(&flags.requestheader_extra_headers_prefix).into();
    }
    config_map("extension-apiserver-authentication", data)
}
