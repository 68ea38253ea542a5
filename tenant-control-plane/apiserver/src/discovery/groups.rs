//! Groups, versions and resources: the plain documents and the aggregated one (KEP-3352).

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::kinds::Name;
use crate::kinds::{Row, Subresource, table::Snapshot};

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `/`.
pub fn paths(table: &Snapshot) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in table.groups().into_iter().filter(|g| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(table.versions(group).iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.sort();
    json!({"paths": paths})
}

/// `/api`.
pub fn core_versions(api: &Api) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{
            "clientCIDR": "0.0.0.0/0",
            "serverAddress": format!("{}:{}", api.config.advertise_address, api.config.secure_port),
        }],
    })
}

fn group_value(table: &Snapshot, group: &str) -> Value {
    let versions: Vec<Value> = table
        .versions(group)
        .iter()
        .map(|v| json!({"groupVersion": group_version(group, v), "version": v}))
        .collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

/// All groups but the core group.
pub fn named(table: &Snapshot) -> Vec<Value> {
    let groups = table.groups().into_iter().filter(|g| !g.is_empty());
    groups.map(|g| group_value(table, g)).collect()
}

/// `/apis`.
pub fn group_list(groups: Vec<Value>) -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(mut group: Value) -> Value {
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

fn rows_of<'t>(table: &'t Snapshot, group: &str, version: &str) -> Vec<&'t Row> {
    let mut rows: Vec<&Row> = table
        .rows()
        .iter()
        .map(|r| r.as_ref())
        .filter(|r| r.group == group && r.version == version)
        .collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    rows
}

fn subresources(row: &Row) -> Vec<&Subresource> {
    let mut all: Vec<_> = row.subresources.iter().collect();
    all.sort_by_key(|s| s.name);
    all
}

/// The resources of a version. Fields are in upstream's order, because people search the text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: String,
    resources: Vec<Resource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    singular_name: Name,
    namespaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    kind: Name,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resources(table: &Snapshot, group: &str, version: &str) -> Option<ResourceList> {
    let rows = rows_of(table, group, version);
    if rows.is_empty() {
        return None;
    }
    let mut resources = Vec::new();
    for row in rows {
        resources.push(Resource {
            name: row.plural.to_string(),
            singular_name: row.singular.clone(),
            namespaced: row.namespaced,
            group: None,
            version: None,
            kind: row.kind.clone(),
            verbs: row.verbs.names(),
            short_names: row.short_names.clone(),
            categories: row.categories.clone(),
            storage_version_hash: row.prefix.is_some().then(|| storage_hash(row)),
        });
        resources.extend(subresources(row).into_iter().map(|sub| Resource {
            name: format!("{}/{}", row.plural, sub.name),
            singular_name: Name::Borrowed(""),
            namespaced: row.namespaced,
            group: sub.group_version.map(|(group, _)| group),
            version: sub.group_version.map(|(_, version)| version),
            kind: sub.kind.clone(),
            verbs: sub.verbs.names(),
            short_names: Vec::new(),
            categories: Vec::new(),
            storage_version_hash: None,
        }));
    }
    Some(ResourceList {
        kind: "APIResourceList",
        api_version: "v1",
        group_version: group_version(group, version),
        resources,
    })
}

/// Equal for resources that are stored in the same group, version and kind.
fn storage_hash(row: &Row) -> String {
    use base64::Engine;
    use std::hash::{Hash, Hasher};
    let stored =
        row.stored_as.as_ref().map_or_else(|| row.api_version(), |s| s.api_version.to_owned());
    let mut hasher = std::hash::DefaultHasher::new();
    (stored, &row.kind).hash(&mut hasher);
    base64::engine::general_purpose::STANDARD.encode(hasher.finish().to_be_bytes())
}

/// The items of the aggregated document: the core group alone, or all others.
pub fn aggregated(table: &Snapshot, core: bool) -> Vec<Value> {
    let groups = table.groups().into_iter().filter(|g| g.is_empty() == core);
    let items = groups.map(|group| {
        let versions: Vec<Value> = table
            .versions(group)
            .iter()
            .map(|version| {
                let rows = rows_of(table, group, version);
                json!({
                    "version": version, "freshness": "Current",
                    "resources": rows.into_iter().map(aggregated_row).collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut metadata = Map::new();
        if !group.is_empty() {
            metadata.insert("name".into(), group.into());
        }
        metadata.insert("creationTimestamp".into(), Value::Null);
        json!({"metadata": metadata, "versions": versions})
    });
    items.collect()
}

fn aggregated_row(row: &Row) -> Value {
    let response_kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": row.plural, "singularResource": row.singular,
        "responseKind": response_kind(&row.group, &row.version, &row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "verbs": row.verbs.names(),
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    let subs: Vec<Value> = subresources(row)
        .into_iter()
        .map(|sub| {
            let (group, version) = sub.group_version.unwrap_or((&row.group, &row.version));
            json!({
                "subresource": sub.name, "verbs": sub.verbs.names(),
                "responseKind": response_kind(group, version, &sub.kind),
            })
        })
        .collect();
    if !subs.is_empty() {
        entry["subresources"] = subs.into();
    }
    entry
}
