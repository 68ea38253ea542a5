//! The objects of the workloads.

use serde_json::{Value, json};

use super::workloads::Kind;

/// Where an object's number goes.
pub const INDEX: &str = "########";
const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A node that is ready, without a kubelet.
pub fn node(zone: Option<&str>, tainted: bool) -> Value {
    let name = format!("node-{INDEX}");
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {HOSTNAME: name}},
        "spec": {},
        "status": {
            "capacity": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}],
        },
    });
    if let Some(zone) = zone {
        node["metadata"]["labels"][ZONE] = zone.into();
    }
    if tainted {
        node["spec"]["taints"] = json!([{"key": "bench", "effect": "NoSchedule"}]);
    }
    node
}

/// The Service whose pods are spread by default.
pub fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "served"},
        "spec": {"selector": {"app": "served"}, "ports": [{"port": 80, "targetPort": 8000}]},
    })
}

/// A pod of a kind, with the name `<batch>-<number>`.
pub fn pod(kind: Kind, batch: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{batch}-{INDEX}")},
        "spec": {"containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}]},
    });
    let cpu = match kind {
        Kind::Labelled => None,
        Kind::LowPriority => Some("900m"),
        Kind::HighPriority => Some("3"),
        Kind::TooLarge => Some("9"),
        _ => Some("100m"),
    };
    if let Some(cpu) = cpu {
        let resources = json!({"cpu": cpu, "memory": "500Mi"});
        let container = &mut pod["spec"]["containers"][0];
        container["ports"] = json!([{"containerPort": 80}]);
        container["resources"] = json!({"requests": resources, "limits": resources});
    }
    if let Some((key, value)) = label(kind) {
        pod["metadata"]["labels"] = json!({key: value});
    }
    wish(kind, &mut pod["spec"]);
    pod
}

fn label(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::Labelled => Some(("app", "served")),
        Kind::AntiAffinity => Some(("color", "green")),
        Kind::PreferredAffinity => Some(("color", "red")),
        Kind::PreferredAntiAffinity => Some(("color", "yellow")),
        Kind::Affinity | Kind::Spread | Kind::PreferredSpread => Some(("color", "blue")),
        Kind::SpreadOverUntainted => Some(("foo", "bar")),
        Kind::Plain | Kind::NodeAffinity => None,
        Kind::LowPriority | Kind::HighPriority | Kind::TooLarge => None,
    }
}

/// What it asks of its node.
fn wish(kind: Kind, spec: &mut Value) {
    let alike = label(kind).map(|(key, value)| json!({"matchLabels": {key: value}}));
    let near = |key: &str| json!({"labelSelector": alike, "topologyKey": key, "namespaces": ["sched-1", "sched-0"]});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = |key: &str| json!([{"podAffinityTerm": near(key), "weight": 1}]);
    let spread = |skew: u32, key: &str, otherwise: &str| {
        json!([{
            "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": otherwise,
            "labelSelector": alike,
        }])
    };
    match kind {
        Kind::Plain | Kind::Labelled => {}
        Kind::AntiAffinity => {
            spec["affinity"] = json!({"podAntiAffinity": {required: [near(HOSTNAME)]}});
        }
        Kind::Affinity => spec["affinity"] = json!({"podAffinity": {required: [near(ZONE)]}}),
        Kind::PreferredAffinity => {
            spec["affinity"] = json!({"podAffinity": {preferred: weighted(HOSTNAME)}});
        }
        Kind::PreferredAntiAffinity => {
            spec["affinity"] = json!({"podAntiAffinity": {preferred: weighted(HOSTNAME)}});
        }
        Kind::NodeAffinity => {
            let zones = json!({"key": ZONE, "operator": "In", "values": ["zone1", "zone2"]});
            let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [zones]}]});
            spec["affinity"] = json!({"nodeAffinity": {required: terms}});
        }
        Kind::Spread => spec["topologySpreadConstraints"] = spread(5, ZONE, "DoNotSchedule"),
        Kind::PreferredSpread => {
            spec["topologySpreadConstraints"] = spread(5, ZONE, "ScheduleAnyway");
        }
        Kind::SpreadOverUntainted => {
            let mut constraints = spread(1, HOSTNAME, "DoNotSchedule");
            constraints[0]["nodeAffinityPolicy"] = "Honor".into();
            constraints[0]["nodeTaintsPolicy"] = "Honor".into();
            spec["topologySpreadConstraints"] = constraints;
        }
        // Nobody waits for a victim's end: no kubelet would tell of it.
        Kind::LowPriority => spec["terminationGracePeriodSeconds"] = 0.into(),
        Kind::HighPriority | Kind::TooLarge => spec["priority"] = 10.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::api::Stencil;

    #[test]
    fn everything_is_of_its_type() {
        use Kind::*;
        use k8s_openapi::api::core::v1::{Node, Pod, Service};
        for kind in [
            Plain,
            Labelled,
            AntiAffinity,
            Affinity,
            PreferredAffinity,
            PreferredAntiAffinity,
            NodeAffinity,
            Spread,
            PreferredSpread,
            SpreadOverUntainted,
            LowPriority,
            HighPriority,
            TooLarge,
        ] {
            let value = pod(kind, "b");
            Stencil::protobuf(&value, &[INDEX]).unwrap();
            let typed: Pod = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&typed).unwrap(), value, "{kind:?}");
        }
        for value in [node(None, false), node(Some("a"), true)] {
            let typed: Node = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&typed).unwrap()["status"], value["status"]);
            Stencil::protobuf(&value, &[INDEX]).unwrap();
        }
        serde_json::from_value::<Service>(service()).unwrap();
    }
}
