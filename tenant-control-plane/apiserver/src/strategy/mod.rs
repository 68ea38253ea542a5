//! The rules that a kind has of its own: what is filled in, reset, kept or refused when an object
//! of it is written. Pure functions; what needs the store or other objects is a [`Hook`], which
//! the registry carries out.
//!
//! Schema-driven rules (required fields, defaults, enums, formats) are not here but in `schema`.

pub mod certificates;
pub mod config;
pub mod definitions;
pub mod events;
pub mod generic;
pub mod job;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod policies;
pub mod qos;
pub mod rbac;
pub mod registration;
pub mod service;
pub mod volumes;
pub mod webhooks;
pub mod workload;

use machinery::names::{Faults, dns1123_subdomain};
use machinery::{Cause, UserInfo};
use serde_json::{Value, json};

/// What a rule may know beside the object.
pub struct Context<'a> {
    /// Who writes.
    pub user: &'a UserInfo,
    /// Now, as the API writes it.
    pub now: &'a str,
}

/// What the registry does around the write of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Nothing.
    None,
    /// Cluster IPs and node ports.
    Service,
    /// Nobody grants more than he has.
    Rbac,
    /// Nobody reads through policies what he may not read.
    Params,
}

/// A kind's rules. Start from `default()` and set what differs.
#[derive(Clone, Debug)]
pub struct Strategy {
    /// Checks `metadata.name`.
    pub name: fn(&str) -> Result<(), Faults>,
    /// Before an object is created; `metadata` is complete and `status` is gone.
    pub on_create: fn(&mut Value, &Context<'_>),
    /// Before an object is replaced; metadata and status are already settled.
    pub on_update: fn(&mut Value, &Value),
    /// Before an object's status is replaced.
    pub on_status: fn(&mut Value, &Value),
    /// What is wrong with the new object, given the old one on updates.
    pub check: fn(&Value, Option<&Value>) -> Vec<Cause>,
    /// `metadata.generation` counts changes outside metadata and status.
    pub generation: bool,
    /// `status` may be given on create.
    pub keeps_status_on_create: bool,
    /// PUT of an object that does not exist creates it.
    pub create_on_update: bool,
    /// PUT without a resourceVersion overwrites.
    pub unconditional_update: bool,
    /// Objects vanish after this many seconds; 0: never.
    pub ttl_s: i64,
    /// Deletion gives the object time to end, as pods get.
    pub graceful: bool,
    /// A write waits until this server's own cache has seen it, so that what decides by the cache
    /// (admission, authorization) is up to date for the client's next request. Off for objects
    /// that are written often and decide nothing.
    pub echo: bool,
    /// Work around the write.
    pub hook: Hook,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            name: dns1123_subdomain,
            on_create: |_, _| {},
            on_update: |_, _| {},
            on_status: |_, _| {},
            check: |_, _| Vec::new(),
            generation: false,
            keeps_status_on_create: false,
            create_on_update: false,
            unconditional_update: true,
            ttl_s: 0,
            graceful: false,
            echo: true,
            hook: Hook::None,
        }
    }
}

/// A field error.
pub fn cause(reason: &str, field: &str, message: impl Into<String>) -> Cause {
    Cause { reason: reason.into(), message: message.into(), field: field.into() }
}

/// `Invalid value: ...: field is immutable`, when the two differ.
pub fn immutable(field: &str, new: &Value, old: &Value) -> Option<Cause> {
    (new != old).then(|| {
        cause("FieldValueInvalid", field, format!("Invalid value: {new}: field is immutable"))
    })
}

/// The object at a key, made if it is absent or not an object.
pub fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    let entry = &mut value[key];
    if !entry.is_object() {
        *entry = json!({});
    }
    entry
}

/// Sets a key unless it is there.
pub fn default_to(value: &mut Value, key: &str, default: Value) {
    if let Some(map) = value.as_object_mut()
        && map.get(key).is_none_or(Value::is_null)
    {
        map.insert(key.into(), default);
    }
}

/// Makes `new[key]` what `old[key]` is, absent included.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(key) {
        Some(value) => map.insert(key.into(), value.clone()),
        None => map.remove(key),
    };
}

/// True when two objects differ outside of metadata and status.
pub fn content_differs(new: &Value, old: &Value) -> bool {
    let skip = ["metadata", "status", "apiVersion", "kind"];
    let content = |v: &Value| -> Vec<(String, Value)> {
        let entries = v.as_object().into_iter().flatten();
        let entries = entries.filter(|(k, _)| !skip.contains(&k.as_str()));
        entries.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    match (new.get("spec"), old.get("spec")) {
        (Some(a), Some(b)) if a != b => true,
        _ => content(new) != content(old),
    }
}
