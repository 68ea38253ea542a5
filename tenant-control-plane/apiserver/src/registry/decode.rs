//! From a request's body to a well-typed object of the row's kind.

use bytes::Bytes;
use machinery::{GroupVersionKind, Reason, Status};
use schema::strict::{cannot_be_handled, strict_decoding_error};
use serde_json::Value;

use super::options::FieldValidation;
use super::{Call, options};
use crate::http::Request;
use crate::http::body::{self, Notation};
use crate::http::repeated::repeated_keys;

/// Reads a body as an object of a kind: group, version and kind are checked or filled in, types
/// are checked, unknown and duplicate fields handled as the client wishes, and dropped.
pub async fn object(
    call: &Call,
    request: &mut Request,
    gvk: &GroupVersionKind,
) -> Result<Value, Status> {
    let notation = body::notation(request)?;
    let bytes = body::read(request).await?;
    from_bytes(call, &bytes, notation, gvk)
}

/// The same from bytes that were read already.
pub fn from_bytes(
    call: &Call,
    bytes: &Bytes,
    notation: Notation,
    gvk: &GroupVersionKind,
) -> Result<Value, Status> {
    let mut object = match notation {
        Notation::Protobuf => from_protobuf(call, bytes)?,
        _ => body::decode_object(bytes, notation, &gvk.kind)?,
    };
    identify(&mut object, gvk)?;
    let found = match notation {
        Notation::Json if !call.row.custom => {
            let schema = call.schema();
            let ty = schema.type_of(&gvk.group, &gvk.version, &gvk.kind);
            Found::All(
                ty.map(|ty| schema.unknown_and_duplicate_fields(ty, bytes)).unwrap_or_default(),
            )
        }
        Notation::Json => Found::Repeated(schema::duplicates::duplicate_fields(bytes)),
        Notation::Yaml => Found::Repeated(repeated_keys(bytes).into_iter().collect()),
        Notation::Protobuf => Found::Repeated(Vec::new()),
    };
    conform(call, &mut object, gvk, found)?;
    Ok(object)
}

/// What is known about a body's keys before its value is looked at.
pub enum Found {
    /// Keys that were given twice.
    Repeated(Vec<String>),
    /// These, and those that the kind does not have, in the order of the document.
    All(Vec<String>),
}

/// A body of DeleteOptions; `null` when there is none.
pub async fn delete_options(call: &Call, request: &mut Request) -> Result<Value, Status> {
    let bytes = body::read(request).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    match body::notation(request)? {
        Notation::Protobuf => from_protobuf(call, &bytes),
        notation => body::decode(&bytes, notation),
    }
}

fn from_protobuf(call: &Call, bytes: &[u8]) -> Result<Value, Status> {
    let schema = call.api.schema;
    let mut object = schema
        .from_protobuf(bytes)
        .map_err(|e| Status::bad_request(format!("the object provided is unrecognized: {e}")))?;
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(ty) = schema.type_of(group, version, object["kind"].as_str().unwrap_or_default()) {
        schema.normalize(ty, &mut object);
    }
    Ok(object)
}

/// Checks that the object says that it is of this kind.
fn identify(object: &mut Value, gvk: &GroupVersionKind) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(cannot_be_handled(
            gvk,
            "json: cannot unmarshal into Go value",
        )));
    };
    let api_version = gvk.api_version();
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (given_version, given_kind) = (text(map.get("apiVersion")), text(map.get("kind")));
    let fits = (given_kind.is_empty() || given_kind == gvk.kind)
        && (given_version.is_empty() || given_version == api_version);
    if !fits {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) or its kind ({given_kind}) does not \
             match the expected API version ({api_version}) and kind ({})",
            gvk.kind
        )));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), gvk.kind.clone().into());
    Ok(())
}

/// Checks types, and reports and drops fields that the kind does not have.
pub fn conform(
    call: &Call,
    object: &mut Value,
    gvk: &GroupVersionKind,
    found: Found,
) -> Result<(), Status> {
    let schema = call.schema();
    let Some(ty) = schema.type_of(&gvk.group, &gvk.version, &gvk.kind) else { return Ok(()) };
    schema
        .check_types(ty, object)
        .map_err(|why| Status::bad_request(cannot_be_handled(gvk, &why)))?;
    let mode = options::field_validation(call)?;
    let unknown = schema.unknown_fields(ty, object);
    if !unknown.is_empty() {
        schema.prune(ty, object);
    }
    let faults = match found {
        Found::All(faults) => faults,
        Found::Repeated(mut faults) => {
            faults.extend(unknown);
            faults
        }
    };
    match mode {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => faults.into_iter().for_each(|fault| call.warn(fault)),
        FieldValidation::Strict if faults.is_empty() => {}
        FieldValidation::Strict => {
            return Err(Status::bad_request(cannot_be_handled(
                gvk,
                &strict_decoding_error(&faults),
            )));
        }
    }
    Ok(())
}

/// Checks a configuration for server-side apply: it may hold nothing that its kind does not have,
/// whatever the client says about unknown fields.
pub fn configuration(call: &Call, config: &Value, gvk: &GroupVersionKind) -> Result<(), Status> {
    let schema = call.schema();
    let Some(ty) = schema.type_of(&gvk.group, &gvk.version, &gvk.kind) else { return Ok(()) };
    schema
        .check_types(ty, config)
        .map_err(|why| Status::bad_request(cannot_be_handled(gvk, &why)))?;
    let undeclared = patch::apply::undeclared(schema, ty, config);
    if undeclared.is_empty() {
        return Ok(());
    }
    let text = |key: &str| config["metadata"][key].as_str().unwrap_or_default();
    // Upstream answers 500 without a reason, and the text is what clients look at.
    Err(Status::new(
        Reason::Unknown,
        format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {}",
            text("namespace"),
            text("name"),
            gvk.api_version(),
            gvk.kind,
            patch::apply::undeclared_text(&undeclared),
        ),
    ))
}
