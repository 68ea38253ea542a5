use serde_json::json;

use super::*;

fn pod() -> Pod {
    let pod = json!({"metadata": {"generation": 2}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": "20m", "memory": "1Mi"}}}]}});
    serde_json::from_value(pod).unwrap()
}

#[test]
fn events_say_which_resources() {
    let pod = pod();
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
    let mut begun = pod();
    assert!(Resizing::of(&begun).under_way.is_none());
    begun.status = serde_json::from_value(json!({"conditions": [
        {"type": "PodResizeInProgress", "status": "True", "observedGeneration": 2}]}))
    .unwrap();
    let standing = Resizing::of(&begun).standing(&begun);
    assert_eq!((standing[0].kind, standing[0].generation), (RESIZE_IN_PROGRESS, Some(2)));
}
