//! Create and update: from a settled object to the store.

use std::sync::Arc;

use http::StatusCode;
use machinery::{Reason, Status};
use serde_json::Value;

use super::{Call, charge, decode, delete, permission, present, settle};
use crate::cache::object::set_revision;
use crate::convert::webhook;
use crate::http::{Request, Response};
use crate::kinds::Row;
use crate::store::{Outcome, Write};
use crate::strategy::{Hook, keep};

/// How often a write that loses races is tried again.
const ATTEMPTS: usize = 50;
/// How often a generated name that is taken is replaced by another.
const NAME_ATTEMPTS: usize = 8;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but status.
    Main,
    /// Status (and annotations and labels).
    Status,
    /// Conditions of a certificate signing request.
    Approval,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// `spec.ephemeralContainers` of a pod.
    EphemeralContainers,
    /// Resources of a pod's containers.
    Resize,
    /// What the caller computed itself.
    Computed(&'static str),
}

impl Part {
    /// Name of the subresource, for admission.
    pub fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
            Part::Approval => "approval",
            Part::Finalize => "finalize",
            Part::EphemeralContainers => "ephemeralcontainers",
            Part::Resize => "resize",
            Part::Computed(name) => name,
        }
    }

    /// Puts back what this part may not change.
    pub fn restrict(self, new: &mut Value, old: &Value, row: &Row) {
        match self {
            Part::Main if row.has_status() => keep(new, old, "status"),
            Part::Main | Part::Computed(_) | Part::Approval => {}
            Part::Status => {
                let status = new.get("status").cloned();
                let metadata = new["metadata"].clone();
                *new = old.clone();
                new["metadata"] = metadata;
                let Some(map) = new.as_object_mut() else { return };
                match status {
                    Some(status) => map.insert("status".into(), status),
                    None => map.remove("status"),
                };
            }
            Part::Finalize => {
                let finalizers = new["spec"]["finalizers"].clone();
                *new = old.clone();
                new["spec"]["finalizers"] = finalizers;
            }
            Part::EphemeralContainers => {
                let containers = new["spec"]["ephemeralContainers"].clone();
                *new = old.clone();
                new["spec"]["ephemeralContainers"] = containers;
            }
            Part::Resize => super::sub::resize::restrict(new, old),
        }
    }
}

/// `POST` on a collection.
pub async fn create(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let dry_run = call.query.dry_run()?;
    let object = decode::object(call, &mut request, &call.gvk()).await?;
    let (object, revision) = create_object(call, object, dry_run).await?;
    present::object(call, object, revision, StatusCode::CREATED)
}

/// Creates an object; returns it as stored (in the row's version) with its revision.
pub async fn create_object(
    call: &Call,
    object: Value,
    dry_run: bool,
) -> Result<(Value, i64), Status> {
    let generated = object["metadata"]["name"].as_str().unwrap_or_default().is_empty();
    let mut attempt = 0;
    loop {
        attempt += 1;
        match create_once(call, object.clone(), dry_run).await {
            // Only a name that was made up may be replaced by another.
            Err(s) if s.reason == Reason::AlreadyExists && generated && attempt < NAME_ATTEMPTS => {
            }
            outcome => return outcome,
        }
    }
}

async fn create_once(
    call: &Call,
    mut object: Value,
    dry_run: bool,
) -> Result<(Value, i64), Status> {
    settle::create(call, &mut object, dry_run).await?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    permission::check(call, None, &object)?;
    let store = &call.api.store;
    let key = call.row.key(&call.info.namespace, &name);
    let lease = match call.row.strategy.ttl_s {
        0 => 0,
        _ if dry_run => 0,
        ttl => store.shared_lease(ttl).await?,
    };
    // A webhook is not asked while others wait for their turn, nor again for each attempt.
    let converted = match call.row.conversion {
        Some(_) if !dry_run => Some(to_stored(call, &object).await?),
        _ => None,
    };
    let charges = if dry_run { Vec::new() } else { call.api.charges(call, &object) };
    let _turn = call.api.turns.wait(&call.info.namespace, &charges).await;
    for _ in 0..ATTEMPTS {
        let mut object = object.clone();
        let mut writes = Vec::new();
        if call.row.strategy.hook == Hook::Service {
            writes = call.api.services.allocate(&mut object, None).await?;
        }
        if dry_run {
            return match store.get(&key).await? {
                Some(_) => Err(Status::already_exists(&call.resource(), &name)),
                None => Ok((object, 0)),
            };
        }
        let value = match &converted {
            Some(converted) => converted.clone(),
            None => to_stored(call, &object).await?,
        };
        writes.extend(charge::writes(call, &charges).await?);
        writes.insert(0, Write::Put { key: key.clone(), value, expected: 0, lease });
        match store.commit(writes).await? {
            Outcome::Done(revision) => {
                echo(call, revision).await;
                return Ok((object, revision));
            }
            Outcome::Changed(Some(_)) => {
                return Err(Status::already_exists(&call.resource(), &name));
            }
            // The object's own key is free: an allocation or a quota lost a race. Once more.
            Outcome::Changed(None) => {}
        }
    }
    Err(Status::new(
        Reason::ServiceUnavailable,
        "addresses, ports or quotas are wanted by too many at once; please try again",
    ))
}

async fn echo(call: &Call, revision: i64) {
    if call.row.strategy.echo {
        call.api.caches.echo(revision).await;
    }
}

/// The bytes to store: in the stored version, without resourceVersion.
pub async fn to_stored(call: &Call, object: &Value) -> Result<Vec<u8>, Status> {
    let mut object = webhook::stored(&call.api, &call.row, object.clone()).await?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    into_stored(&call.row, &mut object);
    Ok(serde_json::to_vec(&object).expect("a JSON value always serialises"))
}

/// Converts an object of the row's version to the stored one. What a webhook has to convert has
/// been.
pub fn into_stored(row: &Row, object: &mut Value) {
    if let Some(stored_as) = &row.stored_as {
        (stored_as.to_stored)(object);
    }
    if let Some(version) = &row.storage_version {
        object["apiVersion"] = version.clone().into();
    }
}

/// `PUT` on an object or a part of it.
pub async fn update(
    call: &Arc<Call>,
    mut request: Request,
    part: Part,
) -> Result<Response, Status> {
    let dry_run = call.query.dry_run()?;
    let body = decode::object(call, &mut request, &call.gvk()).await?;
    let outcome = change(call, part, dry_run, |old| {
        settle::check_identity(call, &body, old)?;
        Ok(body.clone())
    })
    .await;
    match outcome {
        Err(status)
            if status.reason == Reason::NotFound
                && part == Part::Main
                && call.row.strategy.create_on_update =>
        {
            may_create(call)?;
            let mut body = body;
            let metadata = crate::strategy::child(&mut body, "metadata");
            let version = metadata["resourceVersion"].as_str().unwrap_or_default();
            if !version.is_empty() && version != "0" {
                return Err(status);
            }
            metadata["name"] = call.info.name.clone().into();
            metadata.as_object_mut().map(|m| m.remove("resourceVersion"));
            let (object, revision) = create_object(call, body, dry_run).await?;
            present::object(call, object, revision, StatusCode::CREATED)
        }
        Err(status) => Err(status),
        Ok((object, revision)) => present::object(call, object, revision, StatusCode::OK),
    }
}

/// A write to an object that does not exist needs the permission to create it.
pub fn may_create(call: &Call) -> Result<(), Status> {
    let info = machinery::RequestInfo { verb: "create".to_owned(), ..call.info.clone() };
    call.api.authorizer.check(&call.user, &info)
}

/// An object as it is in the store, or as the cache has it.
pub struct Current {
    /// In the row's version, resourceVersion included.
    pub object: Value,
    /// Modification revision.
    pub revision: i64,
    /// True when it may be out of date.
    pub cached: bool,
}

/// The named object: from the cache if it is there and `fresh` is not asked for.
pub async fn current(call: &Call, fresh: bool) -> Result<Current, Status> {
    let name = &call.info.name;
    let cache = call.api.cache(&call.row)?;
    let cache_key = call.cache_key(name);
    if let Some(object) = cache.get(&cache_key).filter(|_| !fresh) {
        let mut objects = [object];
        webhook::objects(&call.api, &call.row, &mut objects).await?;
        let [object] = objects;
        let value = present::in_version(call, &object);
        return Ok(Current { object: value, revision: object.revision, cached: true });
    }
    let key = call.row.key(&call.info.namespace, name);
    match call.api.store.get(&key).await? {
        Some(kv) => from_kv(call, &kv.value, kv.mod_revision).await,
        None => Err(Status::not_found(&call.resource(), name)),
    }
}

async fn from_kv(call: &Call, value: &[u8], revision: i64) -> Result<Current, Status> {
    let mut object: Value = serde_json::from_slice(value)
        .map_err(|e| Status::internal(format!("a stored object is not JSON: {e}")))?;
    set_revision(&mut object, revision);
    if let Some(schema) = &call.row.stored_defaults {
        crate::structural::default(schema, &mut object);
    }
    let mut object = webhook::value(&call.api, &call.row, object).await?;
    from_stored(&call.row, &mut object);
    Ok(Current { object, revision, cached: false })
}

/// Converts a stored object to the row's version. What a webhook has to convert has been.
pub fn from_stored(row: &Row, object: &mut Value) {
    if let Some(stored_as) = &row.stored_as {
        (stored_as.from_stored)(object);
    }
    if row.storage_version.is_some() {
        object["apiVersion"] = row.api_version().into();
        match &row.schema {
            // What the webhook left out has this version's defaults.
            Some(schema) if row.conversion.is_some() => crate::structural::settle(schema, object),
            Some(schema) => crate::structural::prune(schema, object),
            None => {}
        }
    }
}

/// Changes the named object: `change` makes the new one from the current one; it may be called
/// several times. Returns what is stored then, with its revision. An object that is being deleted
/// and loses its last finalizer is removed.
pub async fn change<F>(
    call: &Call,
    part: Part,
    dry_run: bool,
    change: F,
) -> Result<(Value, i64), Status>
where
    F: Fn(&Value) -> Result<Value, Status>,
{
    let mut at = current(call, false).await?;
    for _ in 0..ATTEMPTS {
        match attempt(call, part, dry_run, &change, &at).await {
            Ok(Attempt::Done(object, revision)) => return Ok((object, revision)),
            Ok(Attempt::Changed(next)) => at = next,
            // Judged by an object that may be out of date: look again before refusing.
            Err(status) if at.cached => {
                let fresh = current(call, true).await?;
                if fresh.revision == at.revision {
                    return Err(status);
                }
                at = fresh;
            }
            Err(status) => return Err(status),
        }
    }
    Err(Status::conflict(
        &call.resource(),
        &call.info.name,
        "the object has been modified; please apply your changes to the latest version and try again",
    ))
}

enum Attempt {
    Done(Value, i64),
    Changed(Current),
}

async fn attempt<F>(
    call: &Call,
    part: Part,
    dry_run: bool,
    change: &F,
    at: &Current,
) -> Result<Attempt, Status>
where
    F: Fn(&Value) -> Result<Value, Status>,
{
    let mut new = change(&at.object)?;
    settle::update(call, &mut new, &at.object, part, dry_run).await?;
    let mut writes = Vec::new();
    if call.row.strategy.hook == Hook::Service && part == Part::Main {
        writes = call.api.services.allocate(&mut new, Some(&at.object)).await?;
    }
    permission::check(call, Some(&at.object), &new)?;
    if delete::is_finished(&call.row, &new) {
        if !dry_run {
            match delete::remove(call, &new, at.revision).await? {
                Outcome::Done(revision) => return Ok(Attempt::Done(new, revision)),
                Outcome::Changed(kv) => return changed(call, kv).await,
            }
        }
        return Ok(Attempt::Done(new, at.revision));
    }
    if new == at.object && !at.cached || dry_run {
        return Ok(Attempt::Done(new, at.revision));
    }
    if new == at.object {
        // Nothing to write, if the cache is right.
        let fresh = current(call, true).await?;
        return Ok(match fresh.revision == at.revision {
            true => Attempt::Done(new, at.revision),
            false => Attempt::Changed(fresh),
        });
    }
    let key = call.row.key(&call.info.namespace, &call.info.name);
    let lease = match call.row.strategy.ttl_s {
        0 => 0,
        ttl => call.api.store.shared_lease(ttl).await?,
    };
    let value = to_stored(call, &new).await?;
    writes.insert(0, Write::Put { key, value, expected: at.revision, lease });
    match call.api.store.commit(writes).await? {
        Outcome::Done(revision) => {
            echo(call, revision).await;
            Ok(Attempt::Done(new, revision))
        }
        Outcome::Changed(kv) => changed(call, kv).await,
    }
}

async fn changed(
    call: &Call,
    kv: Option<etcd_api::pb::mvccpb::KeyValue>,
) -> Result<Attempt, Status> {
    match kv {
        Some(kv) => Ok(Attempt::Changed(from_kv(call, &kv.value, kv.mod_revision).await?)),
        None => Err(Status::not_found(&call.resource(), &call.info.name)),
    }
}
