//! Objects in another version of their kind: webhooks are asked in the version that they know.

use std::sync::Arc;

use machinery::{GroupVersionKind, GroupVersionResource, Status};
use serde_json::Value;

use crate::api::Api;
use crate::convert::webhook;
use crate::kinds::Row;
use crate::registry::Call;
use crate::registry::write::{from_stored, into_stored};

/// The same resource in its other versions (and, for a few kinds, other groups).
pub fn equivalents(call: &Call) -> Vec<Arc<Row>> {
    let row = &call.row;
    let table = call.api.table.snapshot();
    let same = |other: &&Arc<Row>| {
        row.prefix.is_some()
            && other.prefix == row.prefix
            && (other.group != row.group || other.version != row.version)
    };
    table.rows().iter().filter(same).cloned().collect()
}

/// The resource of a row.
pub fn gvr(row: &Row) -> GroupVersionResource {
    GroupVersionResource {
        group: row.group.to_string(),
        version: row.version.to_string(),
        resource: row.plural.to_string(),
    }
}

/// The kind of a row.
pub fn gvk(row: &Row) -> GroupVersionKind {
    GroupVersionKind {
        group: row.group.to_string(),
        version: row.version.to_string(),
        kind: row.kind.to_string(),
    }
}

/// What a body of kind `asked` for row `from` is called in row `to`. A subresource's own kind
/// (`Scale`) is the same in all versions.
pub fn gvk_in(to: &Row, from: &Row, asked: &GroupVersionKind) -> GroupVersionKind {
    if *asked == gvk(from) { gvk(to) } else { asked.clone() }
}

/// Converts an object from one row's version to another's. Objects of a subresource's own kind
/// stay as they are.
///
/// # Errors
/// When the object cannot be converted.
pub async fn convert(api: &Api, from: &Row, to: &Row, object: &Value) -> Result<Value, Status> {
    let mut converted = object.clone();
    let is_own = object["apiVersion"] == from.api_version().as_str();
    if from.version == to.version && from.group == to.group || !is_own {
        return Ok(converted);
    }
    if to.conversion.is_some() {
        return webhook::value(api, to, converted).await;
    }
    into_stored(from, &mut converted);
    from_stored(to, &mut converted);
    Ok(converted)
}

/// An object of a request, if there is one, in another row's version; null without one.
///
/// # Errors
/// As [`convert`].
pub async fn converted(call: &Call, to: &Row, object: Option<&Value>) -> Result<Value, Status> {
    match object {
        Some(object) => convert(&call.api, &call.row, to, object).await,
        None => Ok(Value::Null),
    }
}
