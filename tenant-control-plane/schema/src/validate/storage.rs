//! Volumes, claims and classes.

use machinery::{Quantity, names};
use serde_json::Value;

use super::faults::{entries, items, text};
use super::labels::check_selector;
use super::pod::check_resources;
use super::{At, Faults};

/// Fields of a PersistentVolume's spec that are not its source.
const NOT_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(spec: &Value, at: &At<'_>, faults: &mut Faults) {
    if items(spec, "accessModes").is_empty() {
        faults.required(&at.field("accessModes"), "at least 1 access mode is required");
    }
}

pub(super) fn volume(volume: &Value, faults: &mut Faults) {
    let spec = &volume["spec"];
    let at = At::new("spec");
    access_modes(spec, &at, faults);
    let capacity = at.field("capacity");
    match spec.pointer("/capacity/storage") {
        None => faults.required(&capacity, ""),
        Some(amount) => {
            if Quantity::from_json(amount).is_ok_and(|q| q <= Quantity::from_units(0)) {
                faults.invalid(
                    &capacity.key("storage"),
                    amount.clone(),
                    "must be greater than zero",
                );
            }
        }
    }
    let sources: Vec<&String> = entries(volume, "spec")
        .map(|(name, _)| name)
        .filter(|name| !NOT_SOURCES.contains(&name.as_str()))
        .collect();
    if sources.is_empty() {
        faults.required(&at, "must specify a volume type");
    }
    for extra in sources.iter().skip(1) {
        faults.forbidden(&at.field(extra), "may not specify more than 1 volume type");
    }
    if !text(spec, "storageClassName").is_empty() {
        faults.text(
            &at.field("storageClassName"),
            text(spec, "storageClassName"),
            names::dns1123_subdomain,
        );
    }
}

pub(super) fn claim(claim: &Value, faults: &mut Faults) {
    let spec = &claim["spec"];
    let at = At::new("spec");
    access_modes(spec, &at, faults);
    if let Some(selector) = spec.get("selector") {
        check_selector(selector, &at.field("selector"), faults);
    }
    let resources = at.field("resources");
    match spec.pointer("/resources/requests/storage") {
        None => faults.required(&resources.key("storage"), ""),
        Some(amount) => {
            if Quantity::from_json(amount).is_ok_and(|q| q <= Quantity::from_units(0)) {
                let requests = resources.field("requests");
                faults.invalid(
                    &requests.key("storage"),
                    amount.clone(),
                    "must be greater than zero",
                );
            }
            check_resources(&spec["resources"], &resources, faults);
        }
    }
    if !text(spec, "storageClassName").is_empty() {
        faults.text(
            &at.field("storageClassName"),
            text(spec, "storageClassName"),
            names::dns1123_subdomain,
        );
    }
}

pub(super) fn class(class: &Value, faults: &mut Faults) {
    let provisioner = text(class, "provisioner");
    if !provisioner.is_empty() {
        faults.text(&At::new("provisioner"), &provisioner.to_lowercase(), names::qualified_name);
    }
}
