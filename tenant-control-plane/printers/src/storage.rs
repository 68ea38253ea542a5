//! Volumes, claims, classes and drivers, and devices.

use jiff::Timestamp;
use serde_json::Value;

use crate::cell::{self, UNSET, len_at, list_at, plain_or, str_at};
use crate::{AGE, Column, NAME, number, text, wide};

pub(crate) const VOLUME: &[Column] = &[
    NAME,
    text("Capacity"),
    text("Access Modes"),
    text("Reclaim Policy"),
    text("Status"),
    text("Claim"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    text("Reason"),
    AGE,
    wide("VolumeMode"),
];

pub(crate) fn volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = volume
        .pointer("/spec/claimRef")
        .map(|claim| format!("{}/{}", str_at(claim, "/namespace"), str_at(claim, "/name")));
    vec![
        cell::name(volume),
        plain_or(volume, "/spec/capacity/storage", "").into(),
        access_modes(volume, "/spec/accessModes").into(),
        cell::text(volume, "/spec/persistentVolumeReclaimPolicy"),
        phase(volume),
        claim.unwrap_or_default().into(),
        storage_class(volume).into(),
        cell::text_or(volume, "/spec/volumeAttributesClassName", UNSET),
        cell::text(volume, "/status/reason"),
        cell::age(volume, now),
        cell::text_or(volume, "/spec/volumeMode", UNSET),
    ]
}

fn phase(object: &Value) -> Value {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(_) => "Terminating".into(),
        None => cell::text(object, "/status/phase"),
    }
}

/// The class in the spec, or in the annotation that came before it.
fn storage_class(object: &Value) -> &str {
    let annotated = object
        .pointer("/metadata/annotations")
        .and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"))
        .and_then(Value::as_str);
    annotated.unwrap_or_else(|| str_at(object, "/spec/storageClassName"))
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = list_at(object, pointer);
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let found: Vec<&str> = short.iter().filter(|(mode, _)| has(mode)).map(|(_, s)| *s).collect();
    found.join(",")
}

pub(crate) const CLAIM: &[Column] = &[
    NAME,
    text("Status"),
    text("Volume"),
    text("Capacity"),
    text("Access Modes"),
    text("StorageClass"),
    text("VolumeAttributesClass"),
    AGE,
    wide("VolumeMode"),
];

pub(crate) fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let is_bound = !str_at(claim, "/spec/volumeName").is_empty();
    let (capacity, modes) = match is_bound {
        true => (
            plain_or(claim, "/status/capacity/storage", ""),
            access_modes(claim, "/status/accessModes"),
        ),
        false => Default::default(),
    };
    vec![
        cell::name(claim),
        phase(claim),
        cell::text(claim, "/spec/volumeName"),
        capacity.into(),
        modes.into(),
        storage_class(claim).into(),
        cell::text_or(claim, "/spec/volumeAttributesClassName", UNSET),
        cell::age(claim, now),
        cell::text_or(claim, "/spec/volumeMode", UNSET),
    ]
}

pub(crate) const CLASS: &[Column] = &[
    NAME,
    text("Provisioner"),
    text("ReclaimPolicy"),
    text("VolumeBindingMode"),
    text("AllowVolumeExpansion"),
    AGE,
];

pub(crate) fn class(class: &Value, now: Timestamp) -> Vec<Value> {
    let default = class
        .pointer("/metadata/annotations")
        .and_then(|a| a.get("storageclass.kubernetes.io/is-default-class"))
        .is_some_and(|v| v == "true");
    let name = str_at(class, "/metadata/name");
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        cell::text(class, "/provisioner"),
        cell::text_or(class, "/reclaimPolicy", "Delete"),
        cell::text_or(class, "/volumeBindingMode", "Immediate"),
        (class["allowVolumeExpansion"] == true).into(),
        cell::age(class, now),
    ]
}

pub(crate) const DRIVER: &[Column] = &[
    NAME,
    text("AttachRequired"),
    text("PodInfoOnMount"),
    text("StorageCapacity"),
    text("TokenRequests"),
    text("RequiresRepublish"),
    text("Modes"),
    AGE,
];

pub(crate) fn driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let is = |name: &str, otherwise: bool| -> Value {
        driver
            .pointer(&format!("/spec/{name}"))
            .and_then(Value::as_bool)
            .unwrap_or(otherwise)
            .into()
    };
    let modes: Vec<&str> =
        list_at(driver, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let tokens: Vec<&str> =
        list_at(driver, "/spec/tokenRequests").iter().map(|t| str_at(t, "/audience")).collect();
    vec![
        cell::name(driver),
        is("attachRequired", true),
        is("podInfoOnMount", false),
        is("storageCapacity", false),
        if tokens.is_empty() { UNSET.into() } else { tokens.join(",").into() },
        is("requiresRepublish", false),
        if modes.is_empty() { cell::NONE.into() } else { modes.join(",").into() },
        cell::age(driver, now),
    ]
}

pub(crate) const CSI_NODE: &[Column] = &[NAME, number("Drivers"), AGE];

pub(crate) fn csi_node(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(node), len_at(node, "/spec/drivers").into(), cell::age(node, now)]
}

pub(crate) const ATTACHMENT: &[Column] =
    &[NAME, text("Attacher"), text("PV"), text("Node"), text("Attached"), AGE];

pub(crate) fn attachment(attachment: &Value, now: Timestamp) -> Vec<Value> {
    let attached = attachment.pointer("/status/attached") == Some(&Value::Bool(true));
    vec![
        cell::name(attachment),
        cell::text(attachment, "/spec/attacher"),
        cell::text(attachment, "/spec/source/persistentVolumeName"),
        cell::text(attachment, "/spec/nodeName"),
        attached.into(),
        cell::age(attachment, now),
    ]
}

pub(crate) const ATTRIBUTES: &[Column] = &[NAME, text("DriverName"), AGE];

pub(crate) fn attributes(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(class), cell::text(class, "/driverName"), cell::age(class, now)]
}

pub(crate) const DEVICE_CLAIM: &[Column] = &[NAME, text("State"), AGE];

pub(crate) fn device_claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    if claim.pointer("/metadata/deletionTimestamp").is_some() {
        states.push("deleted");
    }
    match claim.pointer("/status/allocation") {
        Some(_) => states.push("allocated"),
        None if states.is_empty() => states.push("pending"),
        None => {}
    }
    if len_at(claim, "/status/reservedFor") > 0 {
        states.push("reserved");
    }
    vec![cell::name(claim), states.join(",").into(), cell::age(claim, now)]
}

pub(crate) const DEVICE_SLICE: &[Column] = &[NAME, text("Node"), text("Driver"), text("Pool"), AGE];

pub(crate) fn device_slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(slice),
        cell::text_or(slice, "/spec/nodeName", UNSET),
        cell::text(slice, "/spec/driver"),
        cell::text(slice, "/spec/pool/name"),
        cell::age(slice, now),
    ]
}
