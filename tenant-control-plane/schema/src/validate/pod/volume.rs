//! Volumes of a pod.

use std::collections::HashMap;

use machinery::{Quantity, names};
use serde_json::Value;

use super::super::faults::{int, items, text};
use super::super::{At, Faults};

/// Checks all volumes. Returns their names, and whether each may be a block device.
pub(super) fn check<'a>(
    spec: &'a Value,
    at: &At<'_>,
    faults: &mut Faults,
) -> HashMap<&'a str, bool> {
    let mut known = HashMap::new();
    let list = at.field("volumes");
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        let here = list.index(index);
        let name = text(volume, "name");
        if !name.is_empty() {
            faults.text(&here.field("name"), name, names::dns1123_label);
            let may_be_block =
                ["persistentVolumeClaim", "ephemeral"].iter().any(|s| volume.get(s).is_some());
            if known.insert(name, may_be_block).is_some() {
                faults.duplicate(&here.field("name"), name);
            }
        }
        source(volume, &here, faults);
    }
    known
}

fn source(volume: &Value, at: &At<'_>, faults: &mut Faults) {
    let sources: Vec<&String> = volume
        .as_object()
        .into_iter()
        .flat_map(|v| v.keys())
        .filter(|key| *key != "name")
        .collect();
    if sources.is_empty() {
        faults.required(at, "must specify a volume type");
    }
    for extra in sources.iter().skip(1) {
        faults.forbidden(&at.field(extra), "may not specify more than 1 volume type");
    }
    // Names of these are optional in the schema, since other uses of the types may omit them.
    for (kind, field) in [("secret", "secretName"), ("configMap", "name")] {
        if let Some(source) = volume.get(kind) {
            let here = at.field(kind);
            if text(source, field).is_empty() {
                faults.required(&here.field(field), "");
            }
            mode(source, "defaultMode", &here, faults);
            keys(source, &here, faults);
        }
    }
    if let Some(path) = volume.get("hostPath").map(|h| text(h, "path"))
        && path.split('/').any(|part| part == "..")
    {
        let here = at.field("hostPath");
        faults.invalid(&here.field("path"), path, "must not contain '..'");
    }
    if let Some(limit) = volume.get("emptyDir").and_then(|e| e.get("sizeLimit"))
        && Quantity::from_json(limit).is_ok_and(Quantity::is_negative)
    {
        let here = at.field("emptyDir");
        faults.forbidden(
            &here.field("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
    if let Some(source) = volume.get("downwardAPI") {
        let here = at.field("downwardAPI");
        mode(source, "defaultMode", &here, faults);
        keys(source, &here, faults);
    }
    if let Some(projected) = volume.get("projected") {
        self::projected(projected, &at.field("projected"), faults);
    }
}

fn projected(projected: &Value, at: &At<'_>, faults: &mut Faults) {
    mode(projected, "defaultMode", at, faults);
    let list = at.field("sources");
    for (index, source) in items(projected, "sources").iter().enumerate() {
        let here = list.index(index);
        let kinds: Vec<&String> = source.as_object().into_iter().flat_map(|s| s.keys()).collect();
        for extra in kinds.iter().skip(1) {
            faults.forbidden(
                &here.field(extra),
                "may not specify more than 1 volume type per source",
            );
        }
        for kind in ["secret", "configMap"] {
            if let Some(inner) = source.get(kind) {
                let place = here.field(kind);
                if text(inner, "name").is_empty() {
                    faults.required(&place.field("name"), "");
                }
                keys(inner, &place, faults);
            }
        }
        if let Some(seconds) =
            source.get("serviceAccountToken").and_then(|t| int(t, "expirationSeconds"))
        {
            let token = here.field("serviceAccountToken");
            let place = token.field("expirationSeconds");
            if seconds < 600 {
                faults.invalid(&place, seconds, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                faults.invalid(
                    &place,
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                );
            }
        }
    }
}

fn mode(source: &Value, name: &str, at: &At<'_>, faults: &mut Faults) {
    if let Some(mode) = int(source, name).filter(|m| !(0..=0o777).contains(m)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        faults.invalid(&at.field(name), mode, why);
    }
}

/// Where the keys of a source go: relative paths that stay inside.
fn keys(source: &Value, at: &At<'_>, faults: &mut Faults) {
    let list = at.field("items");
    for (index, item) in items(source, "items").iter().enumerate() {
        let here = list.index(index);
        let path = text(item, "path");
        if path.starts_with('/') {
            faults.invalid(&here.field("path"), path, "must be a relative path");
        }
        if path.split('/').any(|part| part == "..") {
            faults.invalid(&here.field("path"), path, "must not contain '..'");
        }
        mode(item, "mode", &here, faults);
    }
}
