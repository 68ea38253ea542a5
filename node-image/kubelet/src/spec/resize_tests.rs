use serde_json::json;

use super::*;

fn container(resources: serde_json::Value) -> Container {
    serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap()
}

fn sized(cpu: &str, memory: &str) -> Container {
    container(
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}),
    )
}

const NOTHING: Known<'static> = Known { made_with: None, told: None, reported: None };

#[test]
fn a_pod_keeps_what_it_was_given_until_it_is_given_more() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "initContainers": [
            {"name": "i", "resources": {"requests": {"cpu": "3"}}},
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}],
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "2"}}}, {"name": "b"}]}}))
    .unwrap();
    let pod = Arc::new(pod);
    let mut allocation = asked(&pod);
    assert_eq!(allocation.keys().collect::<Vec<_>>(), ["a", "b", "s"]);
    let equal = json!({"requests": {"cpu": "2000m"}});
    allocation.insert("a".into(), serde_json::from_value(equal).unwrap());
    assert!(Arc::ptr_eq(&given(&pod, Some(&allocation)), &pod), "2 and 2000m are the same");
    allocation.insert("a".into(), container(json!({"requests": {"cpu": "1"}})).resources.unwrap());
    let given = given(&pod, Some(&allocation));
    let cpu = |c: &Container| resources::request(c, "cpu").unwrap().to_string();
    assert_eq!(cpu(&containers::app(&given)[0]), "1");
    assert_eq!(cpu(&containers::init(&given)[0]), "3");
}

#[test]
fn what_differs_is_due() {
    let due_of = |told: &Container, given: &Container| {
        due(given, Known { told: Some(Settings::of(told)), ..NOTHING }).update
    };
    let small = sized("20m", "20Mi");
    assert!(due_of(&small, &small).is_empty());
    assert_eq!(due_of(&small, &sized("30m", "20Mi")), [Resource::Cpu]);
    assert_eq!(due_of(&small, &sized("30m", "30Mi")), [Resource::Memory, Resource::Cpu]);
    let tiny = |cpu: &str| container(json!({"requests": {"cpu": cpu}}));
    assert!(due_of(&tiny("2m"), &tiny("1m")).is_empty(), "the kernel makes no difference");
    assert_eq!(due(&small, NOTHING).update.len(), 2, "told once when nothing is known");
    let reported = Some(Settings::of(&small));
    assert!(due(&small, Known { reported, ..NOTHING }).update.is_empty());
}

#[test]
fn policies_restart_containers() {
    let mut given = sized("20m", "30Mi");
    given.resize_policy = serde_json::from_value(
        json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]),
    )
    .unwrap();
    let made = sized("10m", "20Mi").resources.unwrap();
    let told = Some(Settings::of(&sized("20m", "30Mi")));
    assert!(due(&given, Known { made_with: Some(&made), told, reported: None }).restart);
    let made = sized("10m", "30Mi").resources.unwrap();
    let known = Known { made_with: Some(&made), told, reported: None };
    assert_eq!(due(&given, known), Due::default(), "only memory restarts it");
    assert!(!due(&given, NOTHING).restart, "what another kubelet made is left alone");
    let reported = Some(Settings::of(&sized("20m", "20Mi")));
    assert!(due(&given, Known { reported, ..NOTHING }).restart);
}

#[test]
fn less_is_told_from_more() {
    let of = |cpu: &str, memory: &str| Settings::of(&sized(cpu, memory));
    let (small, large) = (of("20m", "20Mi"), of("30m", "30Mi"));
    for resource in [Resource::Memory, Resource::Cpu] {
        assert!(large.exceeds(small, resource) && !small.exceeds(large, resource));
        assert!(Settings::of(&container(json!({}))).exceeds(small, resource), "unlimited is more");
        assert_eq!(large.with(small, resource).with(large, resource), large);
    }
    assert_eq!(large.with(small, Resource::Memory).quota, large.quota);
}
