//! Patch: JSON patch, merge patch, strategic merge patch.

use std::sync::Arc;

use http::StatusCode;
use machinery::{GroupVersionKind, Reason, Status};
use serde_json::Value;

use super::write::{Part, change};
use super::{Call, decode, present, settle};
use crate::api::Api;
use crate::http::{Request, Response, body, media};

/// Longest list of operations in a JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// A decoded patch.
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' own.
    Strategic(Value),
}

/// Reads a patch from a request.
pub async fn read(call: &Call, request: &mut Request) -> Result<Patch, Status> {
    let media_type = media::content_type(request.headers());
    let unsupported = |why: &str| {
        Status::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json{why}"
            ),
        )
    };
    let make: fn(Value) -> Patch = match media_type.as_str() {
        "application/json-patch+json" => Patch::Json,
        "application/merge-patch+json" => Patch::Merge,
        "application/strategic-merge-patch+json" if !call.row.custom => Patch::Strategic,
        "application/apply-patch+yaml" => {
            return Err(unsupported("; server-side apply is not served"));
        }
        _ => return Err(unsupported("")),
    };
    let bytes = body::read(request).await?;
    let value = body::decode(&bytes, body::Notation::Json)?;
    if value.as_array().is_some_and(|ops| ops.len() > MAX_OPERATIONS) {
        return Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", value.as_array().map_or(0, Vec::len)),
        ));
    }
    Ok(make(value))
}

impl Patch {
    /// The patched object.
    pub fn apply(&self, api: &Api, gvk: &GroupVersionKind, object: &Value) -> Result<Value, Status> {
        match self {
            Patch::Json(patch) => Ok(patch::json_patch(object, patch)?),
            Patch::Merge(patch) => Ok(patch::merge_patch(object, patch)?),
            Patch::Strategic(patch) => {
                let ty = api.schema.type_of(&gvk.group, &gvk.version, &gvk.kind);
                let ty = ty.ok_or_else(|| {
                    Status::new(Reason::UnsupportedMediaType, "the kind has no strategic merge patch")
                })?;
                Ok(patch::strategic_merge(api.schema, ty, object, patch)?)
            }
        }
    }
}

/// `PATCH` on an object or a part of it.
pub async fn patch(call: &Arc<Call>, mut request: Request, part: Part) -> Result<Response, Status> {
    let dry_run = call.query.dry_run()?;
    let patch = read(call, &mut request).await?;
    let gvk = call.gvk();
    let (object, revision) = change(call, part, dry_run, |old| {
        let mut new = patch.apply(&call.api, &gvk, old)?;
        check_kind(&new, old)?;
        settle::check_identity(call, &new, old)?;
        decode::conform(call, &mut new, &gvk, Vec::new())?;
        Ok(new)
    })
    .await?;
    present::object(call, object, revision, StatusCode::OK)
}

fn check_kind(new: &Value, old: &Value) -> Result<(), Status> {
    if new["kind"] != old["kind"] || new["apiVersion"] != old["apiVersion"] {
        return Err(Status::bad_request("a patch may not change the apiVersion or kind of an object"));
    }
    Ok(())
}
