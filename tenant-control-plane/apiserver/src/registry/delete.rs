//! Delete: preconditions, time to end, finalizers.
//!
//! Source: Kubernetes documentation, "Finalizers", "Garbage Collection" and "Pod Lifecycle:
//! Termination of Pods".

use std::sync::Arc;

use futures::StreamExt;
use http::StatusCode;
use machinery::Status;
use serde_json::{Value, json};

use super::options::{DeleteOptions, Propagation};
use super::write::{Current, current};
use super::{Call, decode, options, present, read};
use crate::cache::Filter;
use crate::hooks::Subject;
use crate::http::{Request, Response};
use crate::kinds::Row;
use crate::store::{Outcome, Write};
use crate::strategy::Hook;

const ATTEMPTS: usize = 10;
/// Deletions of one collection that are under way at once.
const PARALLEL: usize = 16;
const DEFAULT_POD_GRACE_S: i64 = 30;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds that answer a finished deletion with the object instead of a Status.
const RETURN_OBJECT: [&str; 9] = [
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
    "limitranges",
    "volumeattachments",
];

/// `DELETE` on an object.
pub async fn delete(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let body = decode::delete_options(call, &mut request).await?;
    let options = DeleteOptions::read(&body, call)?;
    let deleted = delete_object(call, &options).await?;
    if !deleted.gone || RETURN_OBJECT.contains(&call.row.plural.as_ref()) {
        return present::object(call, deleted.object, deleted.revision, StatusCode::OK);
    }
    let mut details = json!({
        "name": call.info.name, "kind": call.row.plural, "uid": deleted.object["metadata"]["uid"],
    });
    if !call.row.group.is_empty() {
        details["group"] = call.row.group.to_string().into();
    }
    Ok(super::success(details))
}

/// What became of a deletion.
pub struct Deleted {
    /// The object afterwards, or as it was last.
    pub object: Value,
    /// Its revision.
    pub revision: i64,
    /// False when it still waits for its grace period or finalizers.
    pub gone: bool,
}

/// Deletes the call's object, or marks it for deletion.
pub async fn delete_object(call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
    let mut at = current(call, false).await?;
    for _ in 0..ATTEMPTS {
        match attempt(call, options, &at).await {
            Ok(Some(deleted)) => return Ok(deleted),
            Ok(None) => at = current(call, true).await?,
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
        "the object keeps changing; please try again",
    ))
}

/// Refuses an object that is not the one that the options mean.
pub fn check_preconditions(
    call: &Call,
    options: &DeleteOptions,
    object: &Value,
) -> Result<(), Status> {
    let checks = [
        ("UID", &options.uid, "uid"),
        ("ResourceVersion", &options.resource_version, "resourceVersion"),
    ];
    for (label, wanted, key) in checks {
        let Some(wanted) = wanted else { continue };
        let actual = object["metadata"][key].as_str().unwrap_or_default();
        if wanted != actual {
            let why = format!(
                "Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {actual}"
            );
            return Err(Status::conflict(&call.resource(), &call.info.name, &why));
        }
    }
    Ok(())
}

/// `None`: the object changed meanwhile.
async fn attempt(
    call: &Call,
    options: &DeleteOptions,
    at: &Current,
) -> Result<Option<Deleted>, Status> {
    check_preconditions(call, options, &at.object)?;
    let (gvk, given) = (call.gvk(), options.to_json());
    let subject = Subject {
        gvk: &gvk,
        subresource: "",
        old: Some(&at.object),
        dry_run: options.dry_run,
        options: Some(&given),
    };
    call.api.validate_admission(call, &subject, None).await?;
    let mut next = at.object.clone();
    mark(&call.row, &mut next, options, &call.now);
    if options.dry_run {
        let gone = is_finished(&call.row, &next);
        return Ok(Some(Deleted { object: next, revision: at.revision, gone }));
    }
    if is_finished(&call.row, &next) {
        return Ok(match remove(call, &next, at.revision).await? {
            Outcome::Done(revision) => Some(Deleted { object: next, revision, gone: true }),
            Outcome::Changed(_) => None,
        });
    }
    if next == at.object {
        return Ok(Some(Deleted { object: next, revision: at.revision, gone: false }));
    }
    let key = call.row.key(&call.info.namespace, &call.info.name);
    let value = super::write::to_stored(call, &next).await?;
    Ok(match call.api.store.put(&key, value, at.revision, 0).await? {
        Outcome::Done(revision) => {
            call.api.caches.echo(revision).await;
            Some(Deleted { object: next, revision, gone: false })
        }
        Outcome::Changed(_) => None,
    })
}

/// Marks an object as being deleted: time to end, finalizers for its dependents.
fn mark(row: &Row, object: &mut Value, options: &DeleteOptions, now: &str) {
    set_propagation(object, options.propagation);
    let grace = if row.strategy.graceful { pod_grace(object, options.grace_s) } else { 0 };
    let is_namespace = row.group.is_empty() && row.plural == "namespaces";
    if is_namespace {
        object["status"]["phase"] = "Terminating".into();
    }
    let metadata = &mut object["metadata"];
    if metadata["deletionTimestamp"].is_null() {
        let at = if grace > 0 { crate::clock::after(grace) } else { now.to_owned() };
        metadata["deletionTimestamp"] = at.into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
        if row.strategy.generation {
            let generation = metadata["generation"].as_i64().unwrap_or(0) + 1;
            metadata["generation"] = generation.into();
        }
    } else if grace < metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) {
        // The time to end can only get shorter.
        metadata["deletionTimestamp"] = crate::clock::after(grace).into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    if is_namespace {
        metadata.as_object_mut().map(|m| m.remove("deletionGracePeriodSeconds"));
    }
}

/// Seconds that a pod gets: none if it never reached a node or has ended.
fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !scheduled || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_POD_GRACE_S);
    asked.unwrap_or(own.max(1))
}

fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let known = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let mut finalizers: Vec<Value> =
        known.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
    }
    if finalizers == known {
        return;
    }
    if finalizers.is_empty() {
        object["metadata"].as_object_mut().map(|m| m.remove("finalizers"));
    } else {
        object["metadata"]["finalizers"] = finalizers.into();
    }
}

/// True when nothing holds a deleted object any more.
pub fn is_finished(row: &Row, object: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(|l| l.is_empty());
    let metadata = &object["metadata"];
    let is_namespace = row.group.is_empty() && row.plural == "namespaces";
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && empty(&metadata["finalizers"])
        && (!is_namespace || empty(&object["spec"]["finalizers"]))
}

/// Takes an object, and what was allocated for it, out of the store.
pub async fn remove(call: &Call, object: &Value, revision: i64) -> Result<Outcome, Status> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let key = call.row.key(&call.info.namespace, name);
    let mut writes = vec![Write::Delete { key, expected: revision }];
    if call.row.strategy.hook == Hook::Service {
        writes.extend(call.api.services.release(object).await?);
    }
    let outcome = call.api.store.commit(writes).await?;
    if let Outcome::Done(revision) = outcome
        && call.row.strategy.echo
    {
        call.api.caches.echo(revision).await;
    }
    Ok(outcome)
}

/// `DELETE` on a collection.
pub async fn collection(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let body = decode::delete_options(call, &mut request).await?;
    let options = DeleteOptions::read(&body, call)?;
    let cache = call.api.cache(&call.row)?;
    let filter: Filter = options::filter(call, &cache)?;
    let applied = call.api.caches.catch_up().await?;
    let found = read::select(call, &cache, &filter, None, 0, applied).await?;
    let deletions = found.objects.iter().map(|object| {
        let one = call.about(object.namespace(), object.name());
        let options = options.clone();
        async move { delete_object(&one, &options).await }
    });
    let mut deletions =
        futures::stream::iter(deletions.collect::<Vec<_>>()).buffer_unordered(PARALLEL);
    while let Some(outcome) = deletions.next().await {
        match outcome {
            // Somebody else was faster.
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    drop(deletions);
    present::list(call, found, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pod_gets_its_time_and_others_none() {
        let table = crate::kinds::Table::new();
        let row = table.snapshot().find("", "v1", "pods").unwrap().clone();
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}});
        mark(&row, &mut pod, &DeleteOptions::default(), "now");
        assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 7);
        assert!(!is_finished(&row, &pod));
        let again = DeleteOptions { grace_s: Some(0), ..DeleteOptions::default() };
        mark(&row, &mut pod, &again, "now");
        assert!(is_finished(&row, &pod));
        let mut waiting = json!({"metadata": {"name": "a", "finalizers": ["x"]}, "spec": {}});
        mark(&row, &mut waiting, &DeleteOptions::default(), "now");
        assert!(!is_finished(&row, &waiting));
    }
}
