//! `/openapi/v2` and `/openapi/v3`: documents of `schema` for the rows of the table. Made when first
//! asked for, and kept as bytes only while the table stays as it is; what describes built-in
//! resources in version 2 is large and never changes, and is kept for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use machinery::{Reason, Status};
use schema::openapi::v2::{Encoding, Part};
use schema::openapi::{Custom, Subresource};
use schema::{ResourceRow, Schema};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::http::{Response, media, respond};
use crate::kinds::table::Snapshot;
use crate::kinds::{Row, Table};

/// Media types of version 2 as protobuf: the first is what is answered, client-go asks for the
/// second.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];
const JSON: &str = "application/json";

/// Documents that were asked for.
#[derive(Default)]
pub struct Documents {
    built_in: [OnceLock<Part<Bytes>>; 2],
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// The table that they were made from.
    table: Option<Arc<Snapshot>>,
    by_path: BTreeMap<String, Document>,
}

/// A document: pieces that are sent one behind the other.
#[derive(Clone)]
struct Document {
    pieces: Arc<[Bytes]>,
    /// Quoted.
    etag: HeaderValue,
}

impl Document {
    fn of(pieces: Vec<Bytes>) -> Self {
        let mut hasher = Sha256::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        let etag = format!("\"{:X}\"", hasher.finalize());
        let etag = HeaderValue::from_str(&etag).expect("quoted hexadecimal digits are a header");
        Self { pieces: pieces.into(), etag }
    }

    /// The document, or 304 when the client has it already.
    fn answer(&self, headers: &HeaderMap, media_type: &'static str) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
        let mut tags = known.flat_map(|v| v.split(',')).map(|tag| tag.trim());
        let has = tags.any(|tag| {
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == self.etag.as_bytes()
        });
        let mut response = match has {
            true => respond::bytes(StatusCode::NOT_MODIFIED, media_type, Bytes::new()),
            false => respond::pieces(media_type, self.pieces.clone()),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

impl Documents {
    fn get(
        &self,
        table: &Table,
        path: &str,
        make: impl FnOnce(&Snapshot) -> Option<Vec<Bytes>>,
    ) -> Option<Document> {
        let current = table.snapshot();
        let mut made = self.made.lock().expect("no panic while locked");
        if !made.table.as_ref().is_some_and(|t| Arc::ptr_eq(t, &current)) {
            *made = Made { table: Some(current.clone()), by_path: BTreeMap::new() };
        }
        if let Some(document) = made.by_path.get(path) {
            return Some(document.clone());
        }
        let document = Document::of(make(&current)?);
        made.by_path.insert(path.to_owned(), document.clone());
        Some(document)
    }

    fn v2(&self, schema: &Schema, table: &Snapshot, encoding: Encoding) -> Vec<Bytes> {
        let rows = rows(table, |_| true);
        let shared =
            |part: Part| Part { paths: part.paths.into(), definitions: part.definitions.into() };
        let built_in = self.built_in[encoding as usize]
            .get_or_init(|| shared(schema.openapi_v2_built_in(&rows, encoding)));
        let custom = shared(schema.openapi_v2_custom(&rows, encoding));
        schema.openapi_v2(encoding, built_in.clone(), custom)
    }
}

/// Answers a path below `/openapi`.
pub fn handle(api: &Arc<Api>, headers: &HeaderMap, rest: &[&str]) -> Option<Response> {
    let schema = api.schema;
    let one = |value: Value| vec![Bytes::from(value.to_string())];
    match rest {
        ["v2"] => {
            let offered = [JSON, PROTOBUF[1], PROTOBUF[0]];
            let Some(best) = media::best_of(headers, &offered) else {
                return Some(respond::error(&Status::new(
                    Reason::NotAcceptable,
                    format!("only the following media types are accepted: {}", offered.join(", ")),
                )));
            };
            let (encoding, path, media_type) = match best {
                JSON => (Encoding::Json, "v2", JSON),
                _ => (Encoding::Protobuf, "v2.pb", PROTOBUF[0]),
            };
            let make = |table: &Snapshot| Some(api.documents.v2(schema, table, encoding));
            Some(api.documents.get(&api.table, path, make)?.answer(headers, media_type))
        }
        ["v3"] => {
            let others = api.aggregation.schemas(&api.caches);
            let make = |t: &Snapshot| Some(schema.openapi_v3_index(&rows(t, |_| true)));
            if others.is_empty() {
                let make = |t: &Snapshot| Some(one(make(t)?));
                return Some(api.documents.get(&api.table, "v3", make)?.answer(headers, JSON));
            }
            let mut index = make(&api.table.snapshot())?;
            index["paths"].as_object_mut()?.extend(others);
            Some(Document::of(one(index)).answer(headers, JSON))
        }
        ["v3", path @ ..] => {
            let path = path.join("/");
            let make =
                |t: &Snapshot| Some(one(schema.openapi_v3(&rows(t, |r| is_at(r, &path)), &path)?));
            let mut response = api.documents.get(&api.table, &path, make)?.answer(headers, JSON);
            // The address holds a hash of the content: it never changes.
            let value = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, value);
            Some(response)
        }
        _ => None,
    }
}

fn is_at(row: &Row, path: &str) -> bool {
    let prefix = if row.group.is_empty() { "api" } else { "apis" };
    path.strip_prefix(prefix).and_then(|p| p.strip_prefix('/')) == Some(&row.api_version())
}

/// Rows as `schema` wants them.
fn rows(table: &Snapshot, wanted: impl Fn(&Row) -> bool) -> Vec<ResourceRow> {
    table.rows().iter().filter(|r| wanted(r)).map(|r| resource_row(r)).collect()
}

fn resource_row(row: &Row) -> ResourceRow {
    let owned = |verbs: Vec<&str>| verbs.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let custom = || Custom {
        schema: row.schema.clone().unwrap_or_default(),
        selectable: row.fields.iter().map(|f| f.name.to_string()).collect(),
    };
    ResourceRow {
        group: row.group.to_string(),
        version: row.version.to_string(),
        kind: row.kind.to_string(),
        list_kind: row.list_kind.to_string(),
        plural: row.plural.to_string(),
        namespaced: row.namespaced,
        verbs: owned(row.verbs.names()),
        subresources: row
            .subresources
            .iter()
            .map(|s| {
                let (group, version) = s.group_version.unwrap_or((&row.group, &row.version));
                Subresource {
                    name: s.name.to_owned(),
                    group: group.to_owned(),
                    version: version.to_owned(),
                    kind: s.kind.to_string(),
                    verbs: owned(s.verbs.names()),
                }
            })
            .collect(),
        custom: row.custom.then(custom),
    }
}
