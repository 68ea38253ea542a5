//! `scale`: the number of replicas, seen alike for every kind that has one.

use std::sync::Arc;

use http::StatusCode;
use machinery::{GroupVersionKind, LabelSelector, Status};
use serde_json::{Value, json};

use crate::hooks::Subject;
use crate::http::{Request, Response};
use crate::registry::decode::Found;
use crate::registry::write::{Current, Part, change, current};
use crate::registry::{Call, decode, patch, present};
use crate::strategy::{cause, child};

fn gvk() -> GroupVersionKind {
    GroupVersionKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() }
}

/// Where a kind keeps its replicas, as JSON pointers.
struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

fn paths(call: &Call) -> Paths {
    call.row.scale_paths.clone().map_or_else(
        || Paths {
            spec: "/spec/replicas".into(),
            status: "/status/replicas".into(),
            selector: Some("/spec/selector".into()),
        },
        |(spec, status, selector)| Paths { spec, status, selector },
    )
}

/// The scale of an object.
fn scale_of(object: &Value, paths: &Paths) -> Value {
    let metadata = &object["metadata"];
    let selector = paths.selector.as_deref().and_then(|p| object.pointer(p));
    let selector = match selector {
        Some(Value::String(text)) => Some(text.clone()),
        Some(map) if map.get("matchLabels").is_some() || map.get("matchExpressions").is_some() => {
            LabelSelector::from_json(map).ok().map(|s| s.to_string())
        }
        Some(map) if map.is_object() => Some(LabelSelector::from_label_map(map).to_string()),
        _ => None,
    };
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": number(&paths.spec)},
        "status": {"replicas": number(&paths.status)},
    });
    if let Some(selector) = selector.filter(|s| !s.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// Answers a request on `scale`.
pub async fn handle(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let paths = paths(call);
    if call.info.verb == "get" {
        call.api.caches.catch_up().await?;
        let Current { object, .. } = current(call, false).await?;
        return present::value(call, &scale_of(&object, &paths), StatusCode::OK);
    }
    let dry_run = call.query.dry_run()?;
    let (object, revision) = if call.info.verb == "update" {
        let body = decode::object(call, &mut request, &gvk()).await?;
        change(call, Part::Computed("scale"), dry_run, |old| resize(call, old, &body, &paths))
            .await?
    } else {
        let patch = patch::read(call, &mut request).await?;
        change(call, Part::Computed("scale"), dry_run, |old| {
            let mut scale = patch.apply(call, &gvk(), &scale_of(old, &paths), "scale")?;
            decode::conform(call, &mut scale, &gvk(), Found::Repeated(Vec::new()))?;
            resize(call, old, &scale, &paths)
        })
        .await?
    };
    let mut scale = scale_of(&object, &paths);
    if revision > 0 {
        scale["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    present::value(call, &scale, StatusCode::OK)
}

fn resize(call: &Call, old: &Value, scale: &Value, paths: &Paths) -> Result<Value, Status> {
    let given = scale["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let current = old["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if !given.is_empty() && given != current {
        return Err(Status::conflict(
            &call.resource(),
            &call.info.name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    let mut new = old.clone();
    set_replicas(&mut new, paths, replicas(scale, &call.info.name)?);
    Ok(new)
}

/// The number that a scale asks for.
fn replicas(scale: &Value, name: &str) -> Result<i64, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if (0..=i64::from(i32::MAX)).contains(&replicas) {
        return Ok(replicas);
    }
    let text = format!("Invalid value: {replicas}: must be greater than or equal to 0");
    let causes = vec![cause("FieldValueInvalid", "spec.replicas", text)];
    Err(Status::invalid("autoscaling", "Scale", name, causes))
}

fn set_replicas(object: &mut Value, paths: &Paths, replicas: i64) {
    let mut at = object;
    let mut parts: Vec<&str> = paths.spec.trim_start_matches('/').split('/').collect();
    let last = parts.pop().unwrap_or("replicas");
    for part in parts {
        at = child(at, part);
    }
    at[last] = replicas.into();
}

/// Lets admission change the new scale of an object: plugins and webhooks see a Scale.
pub async fn admit(call: &Call, new: &mut Value, old: &Value, dry_run: bool) -> Result<(), Status> {
    let (paths, gvk) = (paths(call), gvk());
    let (mut shown, was) = (scale_of(new, &paths), scale_of(old, &paths));
    let subject =
        Subject { gvk: &gvk, subresource: "scale", old: Some(&was), dry_run, options: None };
    if call.api.admit(call, &subject, &mut shown).await? {
        set_replicas(new, &paths, replicas(&shown, &call.info.name)?);
    }
    Ok(())
}

/// Lets admission judge the new scale of an object.
pub async fn judge(call: &Call, new: &Value, old: &Value, dry_run: bool) -> Result<(), Status> {
    let (paths, gvk) = (paths(call), gvk());
    let (shown, was) = (scale_of(new, &paths), scale_of(old, &paths));
    let subject =
        Subject { gvk: &gvk, subresource: "scale", old: Some(&was), dry_run, options: None };
    call.api.validate_admission(call, &subject, Some(&shown)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_scales_below_zero_or_beyond_an_int32() {
        let asked = |count: i64| replicas(&json!({"spec": {"replicas": count}}), "a");
        assert_eq!(asked(0).unwrap(), 0);
        assert_eq!(asked(-1).unwrap_err().code, 422);
        assert_eq!(asked(1 << 31).unwrap_err().code, 422);
    }
}
