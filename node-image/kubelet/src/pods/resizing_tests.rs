use serde_json::json;

use super::*;

const NODE: [i64; 2] = [1000, 1 << 30];

fn pod(uid: &str, cpu: &str, phase: &str) -> Arc<Pod> {
    let pod = json!({"metadata": {"uid": uid, "generation": 2}, "status": {"phase": phase},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn verdict(cpu: &str, others: &[Arc<Pod>], known: &Known) -> Option<Refusal> {
    let [cpu_millis, memory] = NODE;
    let node = NodeFacts { cpu_millis, memory, ..NodeFacts::default() };
    judge(&pod("u", cpu, "Running"), others, known, &node).err()
}

#[test]
fn the_node_has_to_have_room() {
    let others = [pod("o", "400m", "Running"), pod("done", "900m", "Succeeded")];
    let none = Known::new();
    assert_eq!(verdict("600m", &others, &none), None);
    let deferred = verdict("601m", &others, &none).unwrap();
    assert_eq!(deferred.reason, "Deferred");
    assert_eq!(
        deferred.message,
        "Node didn't have enough resource: cpu, requested: 601, used: 400, capacity: 1000"
    );
    let infeasible = verdict("1001m", &others, &none).unwrap();
    assert_eq!(infeasible.reason, "Infeasible");
    assert_eq!(
        infeasible.message,
        "Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000"
    );
    // What the other asks for counts only once it has it.
    let given = resize::asked(&pod("o", "100m", "Running"));
    assert_eq!(verdict("900m", &others, &Known::from([("o".into(), given)])), None);
    // The pod itself is not in its own way.
    assert_eq!(verdict("900m", &[pod("u", "500m", "Running")], &none), None);
}

#[test]
fn events_say_which_resources() {
    let pod = pod("u", "20m", "Running");
    let resources = r#"{"requests":{"cpu":"20m","memory":"1Mi"}}"#;
    assert_eq!(
        tale("error", &pod, Some(2), "why"),
        format!(
            r#"Pod resize error: {{"containers":[{{"name":"c","resources":{resources}}}],"generation":2,"error":"why"}}"#
        )
    );
}

#[test]
fn a_resize_that_an_earlier_kubelet_began_is_followed() {
    let mut begun = Pod::clone(&pod("u", "20m", "Running"));
    assert!(Resizing::of(&begun).under_way.is_none());
    begun.status = serde_json::from_value(json!({"conditions": [
        {"type": "PodResizeInProgress", "status": "True", "observedGeneration": 2}]}))
    .unwrap();
    let standing = Resizing::of(&begun).standing(&begun);
    assert_eq!((standing[0].kind, standing[0].generation), (RESIZE_IN_PROGRESS, Some(2)));
}
