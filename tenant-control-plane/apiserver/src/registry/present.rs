//! Objects in the form that the client accepts: as they are, as metadata only, as table rows.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use http::{StatusCode, header};
use machinery::Status;
use serde_json::{Value, json};

use super::{Call, write};
use crate::cache::object::set_revision;
use crate::cache::{Found, Object};
use crate::convert::webhook;
use crate::http::media::{self, Accepted, Form};
use crate::http::{Response, respond};
use crate::kinds::Row;
use crate::table::Printer;

fn accepted(call: &Call) -> Result<Accepted, Status> {
    media::negotiate(&call.headers, true)
}

/// True for a client that a person reads with: one that asks for it, a browser, curl or wget.
fn is_pretty(call: &Call) -> bool {
    if call.query.get("pretty").is_some_and(|asked| !asked.is_empty()) {
        return call.query.flag("pretty");
    }
    let agent = call.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let readers = ["curl", "Wget", "Mozilla/5.0"];
    agent.is_some_and(|agent| readers.iter().any(|reader| agent.starts_with(reader)))
}

fn send(call: &Call, code: StatusCode, value: &Value, yaml: bool) -> Result<Response, Status> {
    if yaml {
        let text = serde_yaml_ng::to_string(value).map_err(Status::internal)?;
        return Ok(respond::bytes(code, "application/yaml", text));
    }
    if is_pretty(call) {
        let mut text = serde_json::to_vec_pretty(value).map_err(Status::internal)?;
        text.push(b'\n');
        return Ok(respond::bytes(code, "application/json", text));
    }
    Ok(respond::json(code, value))
}

/// An object in memory. A revision of 0 means that it was not stored (dry run).
pub fn object(
    call: &Call,
    mut object: Value,
    revision: i64,
    code: StatusCode,
) -> Result<Response, Status> {
    if revision > 0 {
        set_revision(&mut object, revision);
    }
    let accepted = accepted(call)?;
    let value = match accepted.form {
        Form::Plain => object,
        Form::Partial => partial(&object),
        Form::Table => {
            let printer = Printer::new(call)?;
            printer.table(&[object], json!({"resourceVersion": revision.to_string()}), true)
        }
    };
    send(call, code, &value, accepted.yaml)
}

/// Any other value, such as a Scale.
pub fn value(call: &Call, value: &Value, code: StatusCode) -> Result<Response, Status> {
    let accepted = media::negotiate(&call.headers, false)?;
    send(call, code, value, accepted.yaml)
}

/// A cached object.
pub async fn cached(call: &Call, object: Arc<Object>) -> Result<Response, Status> {
    let accepted = accepted(call)?;
    let mut objects = [object];
    webhook::objects(&call.api, &call.row, &mut objects).await?;
    let [object] = objects;
    let plain = accepted.form == Form::Plain && !accepted.yaml && !is_pretty(call);
    if plain && !call.row.converts() {
        return Ok(respond::bytes(StatusCode::OK, "application/json", object.json.clone()));
    }
    self::object(call, in_version(call, &object), object.revision, StatusCode::OK)
}

/// A cached object in the row's version, as a tree. What a webhook has to convert has been.
pub fn in_version(call: &Call, object: &Object) -> Value {
    row_version(&call.row, object)
}

/// A cached object in the version of any of its rows, as [`in_version`].
pub fn row_version(row: &Row, object: &Object) -> Value {
    let mut value = object.parse();
    write::from_stored(row, &mut value);
    value
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// `metadata` of a list.
fn list_metadata(found: &Found, token: Option<String>) -> Value {
    let mut metadata = json!({"resourceVersion": found.revision.to_string()});
    if let Some(token) = token {
        metadata["continue"] = token.into();
        if let Some(remaining) = found.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    metadata
}

/// A list.
pub async fn list(
    call: &Arc<Call>,
    mut found: Found,
    token: Option<String>,
) -> Result<Response, Status> {
    let accepted = accepted(call)?;
    webhook::objects(&call.api, &call.row, &mut found.objects).await?;
    let metadata = list_metadata(&found, token);
    if accepted.yaml || is_pretty(call) {
        return list_as_tree(call, &found, metadata, accepted);
    }
    let call = call.clone();
    match accepted.form {
        Form::Plain => {
            let head = head(&call.row.list_kind, &call.row.api_version(), &metadata, "items");
            let converts = call.row.converts();
            let render = move |object: Arc<Object>, out: &mut BytesMut| match converts {
                false => out.put_slice(&object.json),
                true => put(out, &in_version(&call, &object)),
            };
            Ok(respond::json_list(head, found.objects, render, "]}"))
        }
        Form::Partial => {
            let head = head("PartialObjectMetadataList", "meta.k8s.io/v1", &metadata, "items");
            let render =
                |object: Arc<Object>, out: &mut BytesMut| put(out, &partial(&object.parse()));
            Ok(respond::json_list(head, found.objects, render, "]}"))
        }
        Form::Table => {
            let printer = Printer::new(&call)?;
            let mut head = head("Table", "meta.k8s.io/v1", &metadata, "columnDefinitions");
            head.truncate(head.len() - 1);
            head.push_str(&printer.columns().to_string());
            head.push_str(",\"rows\":[");
            let render = move |object: Arc<Object>, out: &mut BytesMut| {
                put(out, &printer.row(&in_version(&call, &object)));
            };
            Ok(respond::json_list(head, found.objects, render, "]}"))
        }
    }
}

fn put(out: &mut BytesMut, value: &Value) {
    serde_json::to_writer(out.writer(), value).expect("a JSON value always serialises");
}

/// `{"kind":…,"apiVersion":…,"metadata":…,"<field>":[`
fn head(kind: &str, api_version: &str, metadata: &Value, field: &str) -> String {
    format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"{field}":["#)
}

fn list_as_tree(
    call: &Call,
    found: &Found,
    metadata: Value,
    accepted: Accepted,
) -> Result<Response, Status> {
    let objects: Vec<_> = found.objects.iter().map(|o| in_version(call, o)).collect();
    tree(call, &objects, metadata, accepted)
}

/// A list of objects that are not stored.
pub fn computed(call: &Call, objects: &[Value]) -> Result<Response, Status> {
    tree(call, objects, json!({}), accepted(call)?)
}

fn tree(
    call: &Call,
    objects: &[Value],
    metadata: Value,
    accepted: Accepted,
) -> Result<Response, Status> {
    let value = match accepted.form {
        Form::Plain => json!({
            "kind": call.row.list_kind, "apiVersion": call.row.api_version(),
            "metadata": metadata, "items": objects,
        }),
        Form::Partial => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata, "items": objects.iter().map(partial).collect::<Vec<_>>(),
        }),
        Form::Table => Printer::new(call)?.table(objects, metadata, true),
    };
    send(call, StatusCode::OK, &value, accepted.yaml)
}
