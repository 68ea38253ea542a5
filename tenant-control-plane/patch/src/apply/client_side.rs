//! What `kubectl apply` without `--server-side` leaves on an object, when the same user goes on with
//! `--server-side`: an annotation with the configuration that was applied last, and an entry in
//! `managedFields` that looks like anybody's update.
//!
//! Source: the Kubernetes documentation, "Server-Side Apply", "Upgrading from client-side apply".

use std::collections::BTreeSet;

use schema::Type;
use serde_json::{Map, Value};

use super::Manager;
use super::typed::Typed;

/// The manager under which kubectl applies on the server; another one opts out of all this.
pub(super) const MANAGER: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn last_applied(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

fn annotations_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.pointer_mut("/metadata/annotations")?.as_object_mut()
}

/// Paths of the fields that are as the last configuration set them, and so are the user's own,
/// whoever `managedFields` says they belong to.
pub(super) fn own_paths(
    typed: &Typed<'_>,
    ty: &Type,
    live: &Value,
    by: &Manager<'_>,
) -> BTreeSet<String> {
    let last = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(|last| last["apiVersion"] == by.api_version) else {
        return BTreeSet::new();
    };
    let (Ok(mut own), Ok(difference)) = (typed.fields(ty, &last), typed.compare(ty, &last, live))
    else {
        return BTreeSet::new();
    };
    for other in [&difference.modified, &difference.added, &difference.removed] {
        own.subtract(other);
    }
    own.paths().into_iter().collect()
}

/// Keeps the annotation up to date, so that kubectl can go back to applying by itself.
pub(super) fn renew(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = annotations_of(&mut config) {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = annotations_of(object) else { return };
    annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use schema::Schema;
    use serde_json::json;

    use super::super::{apply, track_update};
    use super::*;

    fn by<'a>(name: &'a str, now: &'a str) -> Manager<'a> {
        Manager { name, api_version: "apps/v1", subresource: "", now }
    }

    fn config(replicas: u64, label: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"l": label}}, "spec": {"replicas": replicas}})
    }

    /// A Deployment as client-side apply of `config` makes it.
    fn applied_by_client(schema: &Schema, ty: &Type, config: &Value) -> Value {
        let mut live = config.clone();
        live["metadata"]["annotations"] = json!({LAST_APPLIED: config.to_string()});
        track_update(schema, ty, None, &mut live, &by("kubectl-client-side-apply", "t1")).unwrap();
        live
    }

    #[test]
    fn kubectl_goes_on_where_client_side_apply_stopped() {
        let schema = Schema::get("1.35").unwrap();
        let ty = schema.type_of("apps", "v1", "Deployment").unwrap();
        let live = applied_by_client(schema, ty, &config(1, "a"));
        let new = config(1, "b");
        assert!(apply(schema, ty, Some(&live), &new, &by("other", "t2"), false).is_err());
        let result = apply(schema, ty, Some(&live), &new, &by(MANAGER, "t2"), false).unwrap();
        assert_eq!(result["metadata"]["labels"]["l"], "b");
        assert_eq!(last_applied(&result), Some(format!("{new}\n").as_str()));
    }

    #[test]
    fn what_somebody_changed_since_is_still_a_conflict() {
        let schema = Schema::get("1.35").unwrap();
        let ty = schema.type_of("apps", "v1", "Deployment").unwrap();
        let live = applied_by_client(schema, ty, &config(1, "a"));
        let mut scaled = live.clone();
        scaled["spec"]["replicas"] = json!(5);
        track_update(schema, ty, Some(&live), &mut scaled, &by("scaler", "t2")).unwrap();
        let error = apply(schema, ty, Some(&scaled), &config(2, "b"), &by(MANAGER, "t3"), false)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
        );
        let mut without = live;
        without["metadata"]["annotations"] = json!({});
        assert!(
            apply(schema, ty, Some(&without), &config(1, "b"), &by(MANAGER, "t3"), false).is_err()
        );
    }
}
