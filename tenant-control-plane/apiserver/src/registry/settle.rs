//! Brings an object that is about to be written into its final shape, and refuses it if it cannot
//! be: metadata, defaults, the kind's own rules, admission, validation.

use machinery::names::Faults;
use machinery::{GroupVersionKind, Status};
use patch::apply::Manager;
use serde_json::{Map, Value};

use super::Call;
use super::sub::{resize, scale};
use super::write::Part;
use crate::hooks::Subject;
use crate::strategy::{Context, cause, content_differs, keep};

/// Longest name that `generateName` makes; longer prefixes are cut.
const MAX_GENERATED: usize = 63;
const SUFFIX: usize = 5;
/// Without vowels and look-alikes, so that no words appear by chance.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random name with a prefix.
pub fn generate_name(prefix: &str) -> String {
    let room = MAX_GENERATED - SUFFIX;
    let cut =
        (0..=room.min(prefix.len())).rev().find(|at| prefix.is_char_boundary(*at)).unwrap_or(0);
    let mut name = prefix[..cut].to_owned();
    name.extend((0..SUFFIX).map(|_| ALPHABET[rand::random_range(0..ALPHABET.len())] as char));
    name
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let map = object.as_object_mut().ok_or_else(|| Status::bad_request("not an object"))?;
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// Completes the metadata of a new object.
pub fn new_metadata(call: &Call, object: &mut Value) -> Result<(), Status> {
    let namespace = call.info.namespace.clone();
    let metadata = metadata(object)?;
    let text = |m: &Map<String, Value>, key: &str| {
        m.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if !text(metadata, "resourceVersion").is_empty() {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let given = text(metadata, "namespace");
    if call.row.namespaced {
        if !given.is_empty() && given != namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), namespace.into());
    } else {
        metadata.remove("namespace");
    }
    let prefix = text(metadata, "generateName");
    if text(metadata, "name").is_empty() && !prefix.is_empty() {
        metadata.insert("name".into(), generate_name(&prefix).into());
    }
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "resourceVersion",
    ] {
        metadata.remove(key);
    }
    if !call.applying {
        metadata.remove("managedFields");
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), call.now.clone().into());
    if call.row.strategy.generation {
        metadata.insert("generation".into(), 1.into());
    }
    Ok(())
}

/// Runs a new object through everything that decides about it.
pub async fn create(call: &Call, object: &mut Value, dry_run: bool) -> Result<(), Status> {
    let row = &call.row;
    let gvk = call.gvk();
    let api = &call.api;
    if !row.strategy.keeps_status_on_create && row.has_status() {
        object.as_object_mut().map(|o| o.remove("status"));
    }
    new_metadata(call, object)?;
    default(call, object, &gvk)?;
    let context = Context { user: &call.user, now: &call.now };
    (row.strategy.on_create)(object, &context);
    let subject = Subject { gvk: &gvk, subresource: "", old: None, dry_run, options: None };
    let before = fixed_part(object);
    if api.admit(call, &subject, object).await? {
        restore(call, object, &before)?;
        (row.strategy.on_create)(object, &context);
    }
    default(call, object, &gvk)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes = name_causes(&name, row.strategy.name);
    causes.extend(api.schema.validate_create(&gvk, object));
    if row.custom {
        causes.extend(crate::kinds::custom::check(call, object));
    }
    causes.extend((row.strategy.check)(object, None));
    dedup(&mut causes);
    if !causes.is_empty() {
        return Err(call.invalid(&name, causes));
    }
    api.validate_admission(call, &subject, Some(object)).await?;
    track(call, None, object, "");
    Ok(())
}

/// What webhooks may not change in a new object, and more metadata.
fn fixed_part(object: &Value) -> Value {
    let mut part = Map::new();
    for key in ["metadata", "status"] {
        if let Some(value) = object.get(key) {
            part.insert(key.to_owned(), value.clone());
        }
    }
    part.into()
}

/// Puts back what webhooks may not change in a new object.
fn restore(call: &Call, object: &mut Value, before: &Value) -> Result<(), Status> {
    let namespace = metadata(object)?.get("namespace").cloned().unwrap_or_default();
    if call.row.namespaced && namespace != before["metadata"]["namespace"] {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    for key in FIXED.iter().filter(|key| **key != "name") {
        keep(&mut object["metadata"], &before["metadata"], key);
    }
    if call.row.has_status() && !call.row.strategy.keeps_status_on_create {
        keep(object, before, "status");
    }
    Ok(())
}

/// Records who set which fields. Objects that are written often and applied never
/// ([`Strategy::echo`](crate::strategy::Strategy) is off) carry no record.
fn track(call: &Call, old: Option<&Value>, new: &mut Value, subresource: &str) {
    let gvk = call.gvk();
    let schema = call.schema();
    if call.applying || !call.row.strategy.echo {
        return;
    }
    let Some(ty) = schema.type_of(&gvk.group, &gvk.version, &gvk.kind) else {
        metadata_of(new).map(|metadata| metadata.remove("managedFields"));
        return;
    };
    let api_version = call.row.api_version();
    let by =
        Manager { name: &call.manager, api_version: &api_version, subresource, now: &call.now };
    if let Err(error) = patch::apply::track_update(schema, ty, old, new, &by) {
        // The write itself is sound; only its bookkeeping is not.
        tracing::warn!(kind = gvk.kind, %error, "recording field owners failed");
        metadata_of(new).map(|metadata| metadata.remove("managedFields"));
    }
}

fn metadata_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

/// Several checks may find the same fault.
fn dedup(causes: &mut Vec<machinery::Cause>) {
    let mut seen = std::collections::HashSet::new();
    causes.retain(|c| seen.insert((c.field.clone(), c.reason.clone())));
}

fn name_causes(name: &str, rule: fn(&str) -> Result<(), Faults>) -> Vec<machinery::Cause> {
    if name.is_empty() {
        let text = "Required value: name or generateName is required";
        return vec![cause("FieldValueRequired", "metadata.name", text)];
    }
    let faults = rule(name).err().unwrap_or_default();
    let text = |fault: String| format!("Invalid value: {name:?}: {fault}");
    faults.into_iter().map(|f| cause("FieldValueInvalid", "metadata.name", text(f))).collect()
}

fn default(call: &Call, object: &mut Value, gvk: &GroupVersionKind) -> Result<(), Status> {
    if call.row.custom {
        return crate::kinds::custom::settle(call, object);
    }
    call.api.schema.apply_defaults(gvk, object);
    Ok(())
}

/// Checks that a replacement is of the object that it replaces.
pub fn check_identity(call: &Call, new: &Value, old: &Value) -> Result<(), Status> {
    let resource = call.resource();
    let name = &call.info.name;
    let text = |v: &Value, key: &str| v["metadata"][key].as_str().unwrap_or_default().to_owned();
    let given = text(new, "name");
    if !given.is_empty() && given != *name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let namespace = text(new, "namespace");
    if call.row.namespaced && !namespace.is_empty() && namespace != call.info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let (uid, known) = (text(new, "uid"), text(old, "uid"));
    if !uid.is_empty() && uid != known {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {known}");
        return Err(Status::conflict(&resource, name, &why));
    }
    let (version, current) = (text(new, "resourceVersion"), text(old, "resourceVersion"));
    if version.is_empty() || version == "0" {
        if !call.row.strategy.unconditional_update {
            let text = "Invalid value: 0x0: must be specified for an update";
            return Err(call.invalid(
                name,
                vec![cause("FieldValueInvalid", "metadata.resourceVersion", text)],
            ));
        }
    } else if version != current {
        return Err(Status::conflict(
            &resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    Ok(())
}

/// Metadata that a client cannot change.
const FIXED: [&str; 9] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "generateName",
];

/// Keeps metadata that a client cannot change.
fn carry_metadata(call: &Call, new: &mut Value, old: &Value, part: Part) -> Result<(), Status> {
    metadata(new)?.remove("selfLink");
    for key in FIXED {
        keep(&mut new["metadata"], &old["metadata"], key);
    }
    if call.applying {
        // The patch has made them.
    } else if part == Part::Main && call.row.strategy.echo {
        patch::apply::settle_entries(new, old);
    } else {
        keep(&mut new["metadata"], &old["metadata"], "managedFields");
    }
    if !call.row.namespaced {
        metadata(new)?.remove("namespace");
    }
    Ok(())
}

/// Runs a changed object through everything that decides about it. `old` is what is stored, in
/// the row's version, resourceVersion included.
pub async fn update(
    call: &Call,
    new: &mut Value,
    old: &Value,
    part: Part,
    dry_run: bool,
) -> Result<(), Status> {
    let row = &call.row;
    let gvk = call.gvk();
    prepare(call, new, old, part, &gvk)?;
    let sub = part.subresource();
    let subject = Subject { gvk: &gvk, subresource: sub, old: Some(old), dry_run, options: None };
    let scaling = part == Part::Computed("scale");
    if scaling {
        scale::admit(call, new, old, dry_run).await?;
    } else if call.api.admit(call, &subject, new).await? {
        prepare(call, new, old, part, &gvk)?;
    }
    carry_metadata(call, new, old, part)?;
    default(call, new, &gvk)?;
    let name = call.info.name.clone();
    let mut causes = Vec::new();
    if part == Part::Main {
        causes.extend(call.api.schema.validate_update(&gvk, new, old));
        causes.extend((row.strategy.check)(new, Some(old)));
    }
    if part == Part::Resize {
        causes.extend(call.api.schema.validate_create(&gvk, new));
        causes.extend(resize::check(new, old));
    }
    if row.custom {
        causes.extend(crate::kinds::custom::check(call, new));
    }
    check_finalizers(new, old, &mut causes);
    dedup(&mut causes);
    if !causes.is_empty() {
        return Err(call.invalid(&name, causes));
    }
    if scaling {
        scale::judge(call, new, old, dry_run).await?;
    } else {
        call.api.validate_admission(call, &subject, Some(new)).await?;
    }
    // Where a pod runs is not its owner's wish: only wishes count.
    let binding = part == Part::Computed("binding");
    if row.strategy.generation && !binding && content_differs(new, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
    track(call, Some(old), new, sub);
    Ok(())
}

/// What a part of an object may be, before anybody judges it.
fn prepare(
    call: &Call,
    new: &mut Value,
    old: &Value,
    part: Part,
    gvk: &GroupVersionKind,
) -> Result<(), Status> {
    carry_metadata(call, new, old, part)?;
    part.restrict(new, old, &call.row);
    default(call, new, gvk)?;
    match part {
        Part::Main => (call.row.strategy.on_update)(new, old),
        Part::Status => (call.row.strategy.on_status)(new, old),
        Part::Approval => crate::strategy::certificates::approve(new, old, &call.now),
        _ => {}
    }
    Ok(())
}

/// An object that is being deleted gets no new finalizers.
fn check_finalizers(new: &Value, old: &Value, causes: &mut Vec<machinery::Cause>) {
    if old["metadata"]["deletionTimestamp"].is_null() {
        return;
    }
    let known = &old["metadata"]["finalizers"];
    let is_known = |f: &Value| known.as_array().is_some_and(|known| known.contains(f));
    let finalizers = new["metadata"]["finalizers"].as_array().into_iter().flatten();
    let added: Vec<String> = finalizers.filter(|f| !is_known(f)).map(Value::to_string).collect();
    if !added.is_empty() {
        let text = format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.join(", ")
        );
        causes.push(cause("FieldValueForbidden", "metadata.finalizers", text));
    }
}
