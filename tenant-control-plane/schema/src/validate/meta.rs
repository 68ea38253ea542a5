//! `metadata` of every kind.

use machinery::names;
use serde_json::Value;

use super::faults::{entries, is_set, items, text};
use super::labels::check_labels;
use super::{At, Faults};

/// Most bytes that all annotations of an object may have, keys included.
const ANNOTATIONS_MAX: usize = 256 * 1024;

pub(super) fn check(object: &Value, faults: &mut Faults) {
    if let Some(metadata) = object.get("metadata") {
        check_below(metadata, &At::new("metadata"), faults);
    }
}

/// The metadata of an object or of a template.
pub(super) fn check_below(metadata: &Value, at: &At<'_>, faults: &mut Faults) {
    check_labels(metadata, "labels", at, faults);
    annotations(metadata, &at.field("annotations"), faults);
    for finalizer in items(metadata, "finalizers").iter().filter_map(Value::as_str) {
        faults.text(&at.field("finalizers"), finalizer, names::qualified_name);
    }
    owners(metadata, &at.field("ownerReferences"), faults);
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g < 0)
    {
        faults.invalid(&at.field("generation"), generation, "must be greater than or equal to 0");
    }
}

fn annotations(metadata: &Value, at: &At<'_>, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        // Annotation keys may have capitals where label keys' prefixes may not.
        if let Err(found) = names::qualified_name(&key.to_lowercase()) {
            for fault in found {
                faults.invalid(at, key.as_str(), &fault);
            }
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        faults.too_long(at, ANNOTATIONS_MAX);
    }
}

fn owners(metadata: &Value, at: &At<'_>, faults: &mut Faults) {
    let mut controller: Option<&str> = None;
    for (index, owner) in items(metadata, "ownerReferences").iter().enumerate() {
        let here = at.index(index);
        for (name, what) in
            [("apiVersion", "version"), ("kind", "kind"), ("name", "name"), ("uid", "uid")]
        {
            if text(owner, name).is_empty() {
                faults.invalid(&here.field(name), "", &format!("{what} must not be empty"));
            }
        }
        if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
            faults.invalid(
                &here,
                owner.clone(),
                "v1, Kind=Event is disallowed from being an owner",
            );
        }
        if is_set(owner, "controller") {
            match controller {
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                        text(owner, "name")
                    );
                    faults.invalid(at, metadata["ownerReferences"].clone(), &why);
                }
                None => controller = Some(text(owner, "name")),
            }
        }
    }
}
