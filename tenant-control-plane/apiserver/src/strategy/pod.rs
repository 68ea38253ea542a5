//! Pod.

use serde_json::{Value, json};

use super::{Context, Strategy, keep, qos};

/// Pod.
pub fn pod() -> Strategy {
    Strategy { generation: true, graceful: true, on_create, on_status, ..Strategy::default() }
}

fn on_create(object: &mut Value, _: &Context<'_>) {
    default_requests(object);
    let class = qos::class(&object["spec"]);
    object["status"] = json!({"phase": "Pending", "qosClass": class});
    let gated = object["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty());
    if gated {
        object["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
}

/// A limit without a request is also the request.
pub fn default_requests(object: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in object["spec"][list].as_array_mut().into_iter().flatten() {
            let Some(limits) = container["resources"]["limits"].as_object().cloned() else {
                continue;
            };
            let resources = &mut container["resources"];
            for (name, amount) in limits {
                let requests = super::child(resources, "requests");
                super::default_to(requests, &name, amount);
            }
        }
    }
}

/// Whose pod it is and how good it has it is not the kubelet's to change.
fn on_status(new: &mut Value, old: &Value) {
    let class = old["status"]["qosClass"].clone();
    if !class.is_null() {
        new["status"]["qosClass"] = class;
    }
    let old_metadata = old["metadata"].clone();
    keep(&mut new["metadata"], &old_metadata, "ownerReferences");
}
