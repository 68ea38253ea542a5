//! `v1 Event` and `events.k8s.io/v1 Event`: the same facts under other names.

use serde_json::Value;

/// Field names of both, core first.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(
    object: &mut Value,
    from: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(map) = object.as_object_mut() else { return };
    for pair in RENAMED {
        let (old, new) = from(pair);
        if let Some(value) = map.remove(old) {
            map.insert(new.into(), value);
        }
    }
}

/// From `v1` to `events.k8s.io/v1`.
pub fn core_to_new(object: &mut Value) {
    rename(object, |(core, new)| (core, new));
    object["apiVersion"] = "events.k8s.io/v1".into();
}

/// From `events.k8s.io/v1` to `v1`.
pub fn new_to_core(object: &mut Value) {
    rename(object, |(core, new)| (new, core));
    object["apiVersion"] = "v1".into();
}
