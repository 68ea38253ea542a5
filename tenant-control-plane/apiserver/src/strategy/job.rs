//! Job: finds its pods by its own uid unless told otherwise.

use machinery::Cause;
use serde_json::{Value, json};

use super::{Context, Strategy, child, immutable};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// Job.
pub fn job() -> Strategy {
    Strategy { generation: true, on_create, check, ..Strategy::default() }
}

fn on_create(object: &mut Value, _: &Context<'_>) {
    if object["spec"]["manualSelector"] == json!(true) {
        return;
    }
    let uid = object["metadata"]["uid"].clone();
    let name = object["metadata"]["name"].clone();
    let spec = child(object, "spec");
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    labels[UID_LABEL] = uid.clone();
    labels["controller-uid"] = uid.clone();
    labels[NAME_LABEL] = name.clone();
    labels["job-name"] = name;
    child(child(spec, "selector"), "matchLabels")[UID_LABEL] = uid;
}

fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(old) = old else { return Vec::new() };
    let mut causes = Vec::new();
    causes.extend(immutable("spec.selector", &new["spec"]["selector"], &old["spec"]["selector"]));
    let suspended = old["spec"]["suspend"] == json!(true) && old["status"]["startTime"].is_null();
    if !suspended {
        causes.extend(immutable(
            "spec.template",
            &new["spec"]["template"],
            &old["spec"]["template"],
        ));
    }
    let (is, was) = (&new["spec"]["completionMode"], &old["spec"]["completionMode"]);
    causes.extend(immutable("spec.completionMode", is, was));
    causes
}
