//! `paths`: which requests each resource takes.

use serde_json::{Map, Value, json};

use super::schemas::{Notation, Schemas};
use super::{ResourceRow, Subresource};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Types of PATCH bodies.
const PATCH_TYPES: [&str; 5] = [
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// One request that a path takes.
struct Operation<'a> {
    /// HTTP method, lower case.
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    /// First part of the operation's id: `readNamespaced…`.
    verb: &'static str,
    kind: (&'a str, &'a str, &'a str),
    query: &'static [&'static str],
    body: Body,
    answer: Answer,
}

enum Body {
    None,
    Kind,
    Patch,
    DeleteOptions,
}

enum Answer {
    Kind,
    List,
    Status,
}

const WRITE: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] =
    &["pretty", "dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LIST: &[&str] = &[
    "pretty",
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// Adds all paths of a resource.
pub(crate) fn add(row: &ResourceRow, schemas: &mut Schemas<'_>, paths: &mut Map<String, Value>) {
    let kind = (row.group.as_str(), row.version.as_str(), row.kind.as_str());
    let has = |verb: &str| row.verbs.iter().any(|v| v == verb);
    let base = match row.group.as_str() {
        "" => format!("/api/{}", row.version),
        group => format!("/apis/{group}/{}", row.version),
    };
    let scope = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", row.plural);
    let list = || operation("get", "list", "list", kind, LIST, Body::None, Answer::List);
    let mut on_all = Vec::new();
    if has("list") {
        on_all.push(list());
    }
    if has("create") {
        on_all.push(operation("post", "post", "create", kind, WRITE, Body::Kind, Answer::Kind));
    }
    if has("deletecollection") {
        let body = Body::DeleteOptions;
        on_all.push(operation(
            "delete",
            "deletecollection",
            "deleteCollection",
            kind,
            LIST,
            body,
            Answer::Status,
        ));
    }
    put(row, &collection, "", on_all, schemas, paths);
    if row.namespaced && has("list") {
        put(
            row,
            &format!("{base}/{}", row.plural),
            "ForAllNamespaces",
            vec![list()],
            schemas,
            paths,
        );
    }
    let item = format!("{collection}/{{name}}");
    put(row, &item, "", item_operations(kind, &row.verbs), schemas, paths);
    for sub in &row.subresources {
        let path = format!("{item}/{}", sub.name);
        put(row, &path, &title(&sub.name), sub_operations(sub), schemas, paths);
    }
}

fn operation<'a>(
    method: &'static str,
    action: &'static str,
    verb: &'static str,
    kind: (&'a str, &'a str, &'a str),
    query: &'static [&'static str],
    body: Body,
    answer: Answer,
) -> Operation<'a> {
    Operation { method, action, verb, kind, query, body, answer }
}

fn item_operations<'a>(kind: (&'a str, &'a str, &'a str), verbs: &[String]) -> Vec<Operation<'a>> {
    let has = |verb: &str| verbs.iter().any(|v| v == verb);
    let mut out = Vec::new();
    if has("get") {
        out.push(operation("get", "get", "read", kind, &["pretty"], Body::None, Answer::Kind));
    }
    if has("update") {
        out.push(operation("put", "put", "replace", kind, WRITE, Body::Kind, Answer::Kind));
    }
    if has("patch") {
        out.push(operation("patch", "patch", "patch", kind, PATCH, Body::Patch, Answer::Kind));
    }
    if has("delete") {
        let body = Body::DeleteOptions;
        out.push(operation("delete", "delete", "delete", kind, DELETE, body, Answer::Status));
    }
    out
}

fn sub_operations(sub: &Subresource) -> Vec<Operation<'_>> {
    let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
    let mut out = item_operations(kind, &sub.verbs);
    if sub.verbs.iter().any(|v| v == "create") {
        out.push(operation("post", "post", "create", kind, WRITE, Body::Kind, Answer::Kind));
    }
    out
}

fn put(
    row: &ResourceRow,
    path: &str,
    suffix: &str,
    operations: Vec<Operation<'_>>,
    schemas: &mut Schemas<'_>,
    paths: &mut Map<String, Value>,
) {
    if operations.is_empty() {
        return;
    }
    let mut item = Map::new();
    let in_path: Vec<Value> = ["namespace", "name"]
        .iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| parameter(schemas.notation, name, "path"))
        .collect();
    if !in_path.is_empty() {
        item.insert("parameters".to_owned(), in_path.into());
    }
    for operation in operations {
        let written = write(row, path, suffix, &operation, schemas);
        item.insert(operation.method.to_owned(), written);
    }
    paths.insert(path.to_owned(), Value::Object(item));
}

fn write(
    row: &ResourceRow,
    path: &str,
    suffix: &str,
    operation: &Operation<'_>,
    schemas: &mut Schemas<'_>,
) -> Value {
    let (group, version, kind) = operation.kind;
    let group_title = group_title(&row.group);
    let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let id = format!(
        "{}{group_title}{}{scope}{}{suffix}",
        operation.verb,
        title(&row.version),
        row.kind
    );
    let reference = match operation.answer {
        Answer::Kind => schemas.add_kind(group, version, kind),
        Answer::List => schemas.add_kind(group, version, &row.list_kind),
        Answer::Status => schemas.add_named(STATUS),
    };
    let body = match operation.body {
        Body::None => None,
        Body::Kind => schemas.add_kind(group, version, kind),
        Body::Patch => Some(json!({"type": "object"})),
        Body::DeleteOptions => schemas.add_named(DELETE_OPTIONS),
    };
    let mut parameters: Vec<Value> =
        operation.query.iter().map(|name| parameter(schemas.notation, name, "query")).collect();
    let mut out = json!({
        "operationId": id,
        "tags": [format!("{}_{}", uncapitalised(&group_title), row.version)],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    let answer = reference.unwrap_or_else(|| json!({"type": "string"}));
    match schemas.notation {
        Notation::V3 => {
            out["responses"] = json!({"200": {"description": "OK", "content": {
                "application/json": {"schema": answer}}}, "401": {"description": "Unauthorized"}});
            if let Some(body) = body {
                let types = body_types(row, &operation.body);
                let content: Map<String, Value> =
                    types.iter().map(|t| ((*t).to_owned(), json!({"schema": body}))).collect();
                out["requestBody"] = json!({"content": content});
            }
        }
        Notation::V2 => {
            out["responses"] = json!({"200": {"description": "OK", "schema": answer},
                "401": {"description": "Unauthorized"}});
            out["produces"] = json!(["application/json"]);
            if let Some(body) = body {
                out["consumes"] = json!(body_types(row, &operation.body));
                parameters.push(json!({"name": "body", "in": "body", "schema": body}));
            }
        }
    }
    out["parameters"] = parameters.into();
    out
}

fn parameter(notation: Notation, name: &str, place: &str) -> Value {
    let kind = match name {
        "allowWatchBookmarks" | "orphanDependents" | "sendInitialEvents" | "watch" | "force" => {
            "boolean"
        }
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    let mut out = json!({"name": name, "in": place});
    if place == "path" {
        out["required"] = true.into();
    }
    match notation {
        Notation::V2 => {
            out["type"] = kind.into();
            out["uniqueItems"] = true.into();
        }
        Notation::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    out
}

/// Media types of a body. Custom resources have no strategic merge patch: it needs struct tags.
fn body_types(row: &ResourceRow, body: &Body) -> Vec<&'static str> {
    if !matches!(body, Body::Patch) {
        return vec!["*/*"];
    }
    let mut types = PATCH_TYPES.to_vec();
    types.retain(|t| row.custom.is_none() || !t.contains("strategic"));
    types
}

/// `rbac.authorization.k8s.io` to `RbacAuthorization`.
fn group_title(group: &str) -> String {
    match group.strip_suffix(".k8s.io").unwrap_or(group) {
        "" => "Core".to_owned(),
        group => group.split(['.', '-']).map(title).collect(),
    }
}

fn uncapitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// `v1` to `V1`, `ephemeralcontainers` to `Ephemeralcontainers`.
fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
