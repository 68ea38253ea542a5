//! `/openapi/v2` and `/openapi/v3`: documents of `schema` for the rows of the table, and of the
//! definitions of custom resources. Made when first asked for, and kept as bytes only while the
//! table stays as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use machinery::{Reason, Status};
use schema::ResourceRow;
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::{Response, respond};
use crate::kinds::table::Snapshot;
use crate::kinds::{Row, Table};

/// Documents that were asked for.
#[derive(Default)]
pub struct Documents {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// The table that they were made from.
    table: Option<Arc<Snapshot>>,
    by_path: BTreeMap<String, Bytes>,
}

impl Documents {
    fn get(
        &self,
        table: &Table,
        path: &str,
        make: impl FnOnce(&Snapshot) -> Option<Value>,
    ) -> Option<Bytes> {
        let current = table.snapshot();
        let mut made = self.made.lock().expect("no panic while locked");
        if !made.table.as_ref().is_some_and(|t| Arc::ptr_eq(t, &current)) {
            *made = Made { table: Some(current.clone()), by_path: BTreeMap::new() };
        }
        if let Some(bytes) = made.by_path.get(path) {
            return Some(bytes.clone());
        }
        let bytes = Bytes::from(make(&current)?.to_string());
        made.by_path.insert(path.to_owned(), bytes.clone());
        Some(bytes)
    }
}

/// Answers a path below `/openapi`.
pub fn handle(api: &Arc<Api>, headers: &HeaderMap, rest: &[&str]) -> Option<Response> {
    let schema = api.schema;
    match rest {
        ["v2"] => {
            if !accepts_json(headers) {
                return Some(respond::error(&Status::new(
                    Reason::NotAcceptable,
                    "only the following media types are accepted: application/json",
                )));
            }
            let bytes =
                api.documents.get(&api.table, "v2", |t| Some(schema.openapi_v2(&rows(t))))?;
            Some(respond::bytes(StatusCode::OK, "application/json", bytes))
        }
        ["v3"] => {
            let bytes = api.documents.get(&api.table, "v3", |table| Some(index(api, table)))?;
            Some(respond::bytes(StatusCode::OK, "application/json", bytes))
        }
        ["v3", path @ ..] => {
            let path = path.join("/");
            let bytes =
                api.documents.get(&api.table, &path, |table| document(api, table, &path))?;
            let mut response = respond::bytes(StatusCode::OK, "application/json", bytes);
            // The address holds a hash of the content: it never changes.
            let value = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, value);
            Some(response)
        }
        _ => None,
    }
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let mut values =
        headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).peekable();
    values.peek().is_none() || values.any(|v| v.contains("json") || v.contains("*/*"))
}

/// Built-in rows as `schema` wants them.
fn rows(table: &Snapshot) -> Vec<ResourceRow> {
    table.rows().iter().filter(|r| !r.custom).map(|r| resource_row(r)).collect()
}

fn resource_row(row: &Row) -> ResourceRow {
    let owned = |verbs: Vec<&str>| verbs.into_iter().map(str::to_owned).collect::<Vec<_>>();
    ResourceRow {
        group: row.group.to_string(),
        version: row.version.to_string(),
        kind: row.kind.to_string(),
        plural: row.plural.to_string(),
        namespaced: row.namespaced,
        verbs: owned(row.verbs.names()),
        subresources: row
            .subresources
            .iter()
            .map(|s| {
                let (group, version) = s.group_version.unwrap_or((&row.group, &row.version));
                schema::openapi::Subresource {
                    name: s.name.to_owned(),
                    group: group.to_owned(),
                    version: version.to_owned(),
                    kind: s.kind.to_string(),
                    verbs: owned(s.verbs.names()),
                }
            })
            .collect(),
    }
}

fn index(api: &Api, table: &Snapshot) -> Value {
    let mut index = api.schema.openapi_v3_index(&rows(table));
    for row in table.rows().iter().filter(|r| r.custom) {
        use std::hash::{Hash, Hasher};
        let path = format!("apis/{}/{}", row.group, row.version);
        let mut hasher = std::hash::DefaultHasher::new();
        for same in table.rows().iter().filter(|r| r.group == row.group && r.version == row.version)
        {
            same.schema.as_ref().map(|s| s.to_string()).hash(&mut hasher);
            same.plural.hash(&mut hasher);
        }
        let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
        index["paths"][path] = json!({"serverRelativeURL": url});
    }
    index
}

fn document(api: &Api, table: &Snapshot, path: &str) -> Option<Value> {
    if let Some(document) = api.schema.openapi_v3(&rows(table), path) {
        return Some(document);
    }
    let custom: Vec<&Row> = table
        .rows()
        .iter()
        .map(|r| r.as_ref())
        .filter(|r| r.custom && format!("apis/{}/{}", r.group, r.version) == path)
        .collect();
    if custom.is_empty() {
        return None;
    }
    // Paths and the list kinds are the same for every kind; only the kind's own schema differs.
    let resource_rows: Vec<ResourceRow> = custom.iter().map(|r| resource_row(r)).collect();
    let mut document = api.schema.openapi_v3(&resource_rows, path)?;
    for row in custom {
        let reversed: Vec<&str> = row.group.split('.').rev().collect();
        let name = format!("{}.{}.{}", reversed.join("."), row.version, row.kind);
        let mut schema =
            row.schema.as_deref().cloned().unwrap_or_else(|| json!({"type": "object"}));
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": row.group, "version": row.version, "kind": row.kind}]);
        for (key, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            schema["properties"][key] = json!({"type": kind});
        }
        document["components"]["schemas"][name] = schema;
    }
    Some(document)
}
