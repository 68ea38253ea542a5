//! From a request's body to a well-typed object of the row's kind.

use bytes::Bytes;
use machinery::{GroupVersionKind, Status};
use schema::strict::{cannot_be_handled, strict_decoding_error};
use serde_json::Value;

use super::options::FieldValidation;
use super::{Call, options};
use crate::http::Request;
use crate::http::body::{self, Notation};

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
        _ => body::decode(bytes, notation)?,
    };
    identify(&mut object, gvk)?;
    let duplicates = match notation {
        Notation::Json => schema::duplicates::duplicate_fields(bytes),
        Notation::Yaml | Notation::Protobuf => Vec::new(),
    };
    conform(call, &mut object, gvk, duplicates)?;
    Ok(object)
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
    mut faults: Vec<String>,
) -> Result<(), Status> {
    let schema = call.schema();
    let Some(ty) = schema.type_of(&gvk.group, &gvk.version, &gvk.kind) else { return Ok(()) };
    schema
        .check_types(ty, object)
        .map_err(|why| Status::bad_request(cannot_be_handled(gvk, &why)))?;
    let mode = options::field_validation(call)?;
    let unknown = schema.unknown_fields(ty, object);
    // Custom objects are pruned by their schema proper, which may keep parts.
    if !unknown.is_empty() && !call.row.custom {
        schema.prune(ty, object);
    }
    faults.extend(unknown);
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
