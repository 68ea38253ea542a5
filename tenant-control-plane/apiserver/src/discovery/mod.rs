//! What this server serves: groups, versions, resources, schemas, its own version and keys.

mod groups;
pub mod openapi;
mod version;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::api::Api;
use crate::http::media::wants_kind;
use crate::http::{Response, respond};
use crate::kinds::table::Snapshot;

const AGGREGATED_GROUP: &str = "apidiscovery.k8s.io";
const AGGREGATED_KIND: &str = "APIGroupDiscoveryList";

/// Answers a path that names no resource; `None` when it names nothing at all.
pub fn handle(api: &Arc<Api>, headers: &HeaderMap, path: &str) -> Option<Response> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let table = api.table.snapshot();
    let json = |value| Some(respond::json(StatusCode::OK, &value));
    match parts.as_slice() {
        [] => json(groups::paths(&table)),
        ["version"] => json(version::info(api)),
        ["api"] => Some(
            aggregated(headers, || groups::aggregated(&table, true))
                .unwrap_or_else(|| respond::json(StatusCode::OK, &groups::core_versions(api))),
        ),
        ["apis"] => Some(
            aggregated(headers, || {
                let mut items = groups::aggregated(&table, false);
                api.aggregation.add_documents(&api.caches, &table, &mut items);
                items
            })
            .unwrap_or_else(|| {
                respond::json(StatusCode::OK, &groups::group_list(groups_of(api, &table)))
            }),
        ),
        ["api", version] => resources(&table, "", version),
        ["apis", group] => {
            let mut groups = groups_of(api, &table).into_iter();
            json(groups::group(groups.find(|value| value["name"] == **group)?))
        }
        ["apis", group, version] => resources(&table, group, version),
        ["openapi", ..] => openapi::handle(api, headers, &parts[1..]),
        [".well-known", "openid-configuration"] => {
            let issuer = api.issuer.as_ref()?;
            let uri = api.config.jwks_uri();
            let document = issuer.discovery(&uri);
            Some(respond::bytes(StatusCode::OK, "application/json", document.to_string()))
        }
        ["openid", "v1", "jwks"] => {
            let keys = api.issuer.as_ref()?.jwks();
            Some(respond::bytes(StatusCode::OK, "application/jwk-set+json", keys.to_string()))
        }
        _ => None,
    }
}

/// The groups of this server and of others.
fn groups_of(api: &Api, table: &Snapshot) -> Vec<Value> {
    let mut groups = groups::named(table);
    api.aggregation.add_groups(&api.caches, table, &mut groups);
    groups
}

fn resources(table: &Snapshot, group: &str, version: &str) -> Option<Response> {
    groups::resources(table, group, version).map(|list| respond::json(StatusCode::OK, &list))
}

/// The aggregated form, if the client prefers it.
fn aggregated(headers: &HeaderMap, items: impl Fn() -> Vec<Value>) -> Option<Response> {
    let version = wants_kind(headers, AGGREGATED_GROUP, AGGREGATED_KIND)?;
    if version != "v2" && version != "v2beta1" {
        return None;
    }
    let document = json!({
        "kind": AGGREGATED_KIND, "apiVersion": format!("{AGGREGATED_GROUP}/{version}"),
        "metadata": {}, "items": items(),
    });
    let mut response = respond::json(StatusCode::OK, &document);
    let text = format!("application/json;g={AGGREGATED_GROUP};v={version};as={AGGREGATED_KIND}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Some(response)
}
