//! Kinds that make pods from a template.

use machinery::Cause;
use serde_json::Value;

use super::{Context, Strategy, child, immutable};

/// Deployment, ReplicaSet, StatefulSet, DaemonSet, CronJob.
pub fn workload() -> Strategy {
    Strategy { generation: true, check: check_selector, ..Strategy::default() }
}

/// ReplicationController: its selector and labels follow its template.
pub fn replication_controller() -> Strategy {
    Strategy { generation: true, on_create: default_from_template, ..Strategy::default() }
}

/// PodTemplate.
pub fn template() -> Strategy {
    Strategy { generation: true, ..Strategy::default() }
}

/// ControllerRevision: its data stays.
pub fn controller_revision() -> Strategy {
    let check = |new: &Value, old: Option<&Value>| {
        old.and_then(|old| immutable("data", &new["data"], &old["data"])).into_iter().collect()
    };
    Strategy { check, ..Strategy::default() }
}

fn default_from_template(object: &mut Value, _: &Context<'_>) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_none_or(|l| l.is_empty()) {
        return;
    }
    let empty = |v: &Value| v.as_object().is_none_or(|m| m.is_empty());
    if empty(&object["spec"]["selector"]) {
        object["spec"]["selector"] = labels.clone();
    }
    if empty(&object["metadata"]["labels"]) {
        child(object, "metadata")["labels"] = labels;
    }
}

/// The selector may not change.
fn check_selector(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let changed = old.and_then(|old| {
        immutable("spec.selector", &new["spec"]["selector"], &old["spec"]["selector"])
    });
    changed.into_iter().collect()
}
