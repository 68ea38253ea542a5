//! Patch: JSON patch, merge patch, strategic merge patch, server-side apply.

use std::sync::Arc;

use http::StatusCode;
use machinery::{Cause, GroupVersionKind, Reason, Status};
use patch::apply::Manager;
use serde_json::Value;

use super::decode::Found;
use super::options::FieldValidation;
use super::write::{self, Part, change, create_object};
use super::{Call, decode, options, present, settle};
use crate::http::repeated::repeated_keys;
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
    /// A configuration for server-side apply, and whether it takes fields from others.
    Apply(Value, bool),
}

/// Reads a patch from a request.
pub async fn read(call: &Call, request: &mut Request) -> Result<Patch, Status> {
    let media_type = media::content_type(request.headers());
    let unsupported = || {
        Status::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml (got {media_type:?})"
            ),
        )
    };
    let make: fn(Value) -> Patch = match media_type.as_str() {
        "application/json-patch+json" => Patch::Json,
        "application/merge-patch+json" => Patch::Merge,
        "application/strategic-merge-patch+json" if !call.row.custom => Patch::Strategic,
        "application/apply-patch+yaml" => return read_apply(call, request).await,
        _ => return Err(unsupported()),
    };
    let bytes = body::read(request).await?;
    let value = body::decode(&bytes, body::Notation::Json)?;
    if value.as_array().is_some_and(|ops| ops.len() > MAX_OPERATIONS) {
        return Err(Status::new(
            Reason::RequestEntityTooLarge,
            format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                value.as_array().map_or(0, Vec::len)
            ),
        ));
    }
    Ok(make(value))
}

async fn read_apply(call: &Call, request: &mut Request) -> Result<Patch, Status> {
    if call.query.get("fieldManager").is_none_or(str::is_empty) {
        return Err(Status::bad_request("fieldManager is required for apply patch"));
    }
    let bytes = body::read(request).await?;
    let config = body::decode(&bytes, body::Notation::Yaml)?;
    for key in ["apiVersion", "kind"] {
        if config[key].as_str().is_none_or(str::is_empty) {
            return Err(Status::bad_request(format!(
                "{key} must be set in an applied configuration"
            )));
        }
    }
    let mode = options::field_validation(call)?;
    if let Some(text) = repeated_keys(&bytes).filter(|_| mode != FieldValidation::Ignore) {
        let text = format!("error converting YAML to JSON: {text}");
        if mode == FieldValidation::Strict {
            return Err(Status::bad_request(format!("error strict decoding YAML: {text}")));
        }
        call.warn(text);
    }
    Ok(Patch::Apply(config, call.query.flag("force")))
}

impl Patch {
    /// The patched object.
    pub fn apply(
        &self,
        call: &Call,
        gvk: &GroupVersionKind,
        object: &Value,
        subresource: &str,
    ) -> Result<Value, Status> {
        let schema = match call.gvk() == *gvk {
            true => call.schema(),
            false => call.api.schema,
        };
        let ty = schema.type_of(&gvk.group, &gvk.version, &gvk.kind);
        match self {
            Patch::Json(patch) => Ok(patch::json_patch(object, patch)?),
            Patch::Merge(patch) => Ok(patch::merge_patch(object, patch)?),
            Patch::Strategic(patch) => {
                let ty = ty.ok_or_else(|| {
                    Status::new(
                        Reason::UnsupportedMediaType,
                        "the kind has no strategic merge patch",
                    )
                })?;
                let patched = patch::strategic_merge(schema, ty, object, patch)?;
                match schema.conversion_error(ty, &patched) {
                    None => Ok(patched),
                    Some(why) => Err(does_not_fit(patch, &why)),
                }
            }
            Patch::Apply(config, force) => {
                let ty = ty.ok_or_else(|| {
                    Status::new(Reason::UnsupportedMediaType, "the kind has no server-side apply")
                })?;
                let api_version = gvk.api_version();
                let by = Manager {
                    name: &call.manager,
                    api_version: &api_version,
                    subresource,
                    now: &call.now,
                };
                let live = (!object.is_null()).then_some(object);
                Ok(patch::apply::apply(schema, ty, live, config, &by, *force)?)
            }
        }
    }
}

/// A strategic merge patch whose result has fields of wrong types.
fn does_not_fit(patch: &Value, why: &str) -> Status {
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {:?}: {why}", schema::convert::go_text(patch)),
        field: "patch".into(),
    };
    Status::invalid("", "", "", vec![cause])
}

/// `PATCH` on an object or a part of it.
pub async fn patch(call: &Arc<Call>, mut request: Request, part: Part) -> Result<Response, Status> {
    let dry_run = call.query.dry_run()?;
    let mut patch = read(call, &mut request).await?;
    let applying = matches!(patch, Patch::Apply(..));
    let call = &Arc::new(Call { applying, ..Call::clone(call) });
    let gvk = call.gvk();
    if let Patch::Apply(config, _) = &mut patch {
        decode::configuration(call, config, &gvk)?;
        check_kind(
            config,
            &serde_json::json!({"kind": gvk.kind, "apiVersion": gvk.api_version()}),
        )?;
    }
    let outcome = change(call, part, dry_run, |old| {
        let mut new = patch.apply(call, &gvk, old, part.subresource())?;
        check_kind(&new, old)?;
        settle::check_identity(call, &new, old)?;
        if !applying {
            decode::conform(call, &mut new, &gvk, Found::Repeated(Vec::new()))?;
        }
        Ok(new)
    })
    .await;
    match outcome {
        Ok((object, revision)) => present::object(call, object, revision, StatusCode::OK),
        Err(s) if s.reason == Reason::NotFound && applying && part == Part::Main => {
            write::may_create(call)?;
            let mut object = patch.apply(call, &gvk, &Value::Null, "")?;
            object["metadata"]["name"] = call.info.name.clone().into();
            let (object, revision) = create_object(call, object, dry_run).await?;
            present::object(call, object, revision, StatusCode::CREATED)
        }
        Err(status) => Err(status),
    }
}

fn check_kind(new: &Value, old: &Value) -> Result<(), Status> {
    if new["kind"] != old["kind"] || new["apiVersion"] != old["apiVersion"] {
        return Err(Status::bad_request(
            "a patch may not change the apiVersion or kind of an object",
        ));
    }
    Ok(())
}
