//! Objects of each kind and what they count for.

use serde_json::json;

use super::*;

fn used(resource: &GroupResource, object: &Value) -> Vec<String> {
    let counted = Counted::of(resource, object);
    let used = counted.usage("2026-01-01T00:00:00Z".parse().unwrap());
    used.map(|(name, amount)| format!("{name}={amount}")).collect()
}

fn core(plural: &str) -> GroupResource {
    GroupResource::new("", plural)
}

#[test]
fn each_name_belongs_to_one_resource() {
    for (name, plural) in [
        ("pods", "pods"),
        ("cpu", "pods"),
        ("requests.ephemeral-storage", "pods"),
        ("limits.memory", "pods"),
        ("hugepages-2Mi", "pods"),
        ("requests.hugepages-2Mi", "pods"),
        ("requests.example.com/dongle", "pods"),
        ("count/pods", "pods"),
        ("services.nodeports", "services"),
        ("requests.storage", "persistentvolumeclaims"),
        ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
        ("secrets", "secrets"),
    ] {
        assert_eq!(counted_by(name), Some(core(plural)), "{name}");
    }
    let custom = GroupResource::new("example.com", "things");
    assert_eq!(counted_by("count/things.example.com"), Some(custom));
    assert_eq!(counted_by("example.com/dongle"), None);
    assert_eq!(counted_by("limits.example.com/dongle"), None);
}

#[test]
fn a_pod_counts_until_it_ends_or_is_stuck() {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c",
        "resources": {"requests": {"cpu": "500m", "example.com/dongle": "2"},
            "limits": {"cpu": "1", "example.com/dongle": "2"}}}]}});
    let all = [
        "count/pods=1",
        "cpu=500m",
        "limits.cpu=1",
        "pods=1",
        "requests.cpu=500m",
        "requests.example.com/dongle=2",
    ];
    assert_eq!(used(&core("pods"), &pod), all);
    pod["status"]["phase"] = "Failed".into();
    assert_eq!(used(&core("pods"), &pod), ["count/pods=1"]);
    pod["status"]["phase"] = "Running".into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    pod["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:45Z".into();
    assert_eq!(used(&core("pods"), &pod), all);
    pod["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:15Z".into();
    assert_eq!(used(&core("pods"), &pod), ["count/pods=1"]);
}

#[test]
fn services_and_claims_count_their_parts() {
    let service = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}]}});
    assert_eq!(
        used(&core("services"), &service),
        ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=1"]
    );
    let claim = json!({"spec": {"storageClassName": "gold",
        "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": "2Gi"}}});
    assert_eq!(
        used(&core("persistentvolumeclaims"), &claim),
        [
            "count/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/requests.storage=2Gi",
            "persistentvolumeclaims=1",
            "requests.storage=2Gi",
        ]
    );
}

#[test]
fn scopes_choose_objects() {
    let within = |quota: Value, resource: &str, object: &Value| {
        Counted::of(&core(resource), object).is_in(&Scopes::of(&quota))
    };
    let plain = |scope: &str| json!({"spec": {"scopes": [scope]}});
    let selector = |scope: &str, operator: &str, values: &[&str]| {
        json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": scope, "operator": operator, "values": values}]}}})
    };
    // What is neither CPU nor memory leaves a pod in the lowest class.
    let pod = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high",
        "containers": [{"resources": {"requests": {"example.com/dongle": "1"}}}]}});
    for (scope, is_in) in [
        ("Terminating", true),
        ("NotTerminating", false),
        ("BestEffort", true),
        ("NotBestEffort", false),
        ("PriorityClass", true),
        ("CrossNamespacePodAffinity", false),
        ("VolumeAttributesClass", false),
    ] {
        assert_eq!(within(plain(scope), "pods", &pod), is_in, "{scope}");
        assert!(!within(plain(scope), "services", &json!({})), "{scope}");
    }
    let class = |operator: &str, values: &[&str], pod: &Value| {
        within(selector("PriorityClass", operator, values), "pods", pod)
    };
    assert!(class("In", &["low", "high"], &pod) && !class("In", &["low"], &pod));
    assert!(class("NotIn", &["low"], &pod) && !class("NotIn", &["high"], &pod));
    assert!(class("NotIn", &["low"], &json!({})) && class("DoesNotExist", &[], &json!({})));
    let across = json!({"spec": {"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"namespaceSelector": {}}}]}}}});
    assert!(within(plain("CrossNamespacePodAffinity"), "pods", &across));
    let claim = json!({"spec": {"volumeAttributesClassName": "fast"},
        "status": {"currentVolumeAttributesClassName": "slow"}});
    let claims = |operator: &str, values: &[&str]| {
        within(
            selector("VolumeAttributesClass", operator, values),
            "persistentvolumeclaims",
            &claim,
        )
    };
    assert!(claims("Exists", &[]) && claims("In", &["slow"]) && !claims("In", &["other"]));
    assert!(Counted::of(&core("services"), &json!({})).is_in(&Scopes::default()));
}
