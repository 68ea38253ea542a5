//! OpenAPI documents, built from the table and from what the API server serves.
//!
//! kubectl reads version 3: which query parameters a PATCH takes (`paths`), what `explain` shows
//! and how `apply` merges (`components`). Documents are made on demand and not kept here: the
//! caller caches the bytes it sends.

mod custom;
mod docs;
mod gnostic;
mod paths;
mod schemas;
pub mod v2;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::table::Schema;
use schemas::{Notation, Schemas};

/// One served resource, as the API server's table of kinds has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceRow {
    /// API group, `""` for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// CamelCase kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Lower-case plural, as in URLs.
    pub plural: String,
    /// True when objects live in namespaces.
    pub namespaced: bool,
    /// `create`, `get`, `list`, `watch`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<String>,
    /// Subresources by their name in URLs.
    pub subresources: Vec<Subresource>,
    /// Set for custom resources.
    pub custom: Option<Custom>,
}

/// What the definition of a custom resource says about one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Custom {
    /// `openAPIV3Schema`; `null` when there is none.
    pub schema: Arc<Value>,
    /// Paths of selectable fields, without the dot in front: `spec.color`.
    pub selectable: Vec<String>,
}

/// One subresource of a [`ResourceRow`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subresource {
    /// Name in URLs, such as `status`.
    pub name: String,
    /// Group of its kind.
    pub group: String,
    /// Version of its kind.
    pub version: String,
    /// Its kind: the parent's for `status`, `Scale` for `scale`.
    pub kind: String,
    /// `get`, `create`, `update`, `patch`.
    pub verbs: Vec<String>,
}

impl ResourceRow {
    /// `api/v1` or `apis/apps/v1`.
    fn path(&self) -> String {
        match self.group.as_str() {
            "" => format!("api/{}", self.version),
            group => format!("apis/{group}/{}", self.version),
        }
    }
}

impl Schema {
    /// `/openapi/v3`: the group versions, each with an address that changes when its document does.
    pub fn openapi_v3_index(&self, rows: &[ResourceRow]) -> Value {
        let mut groups: BTreeMap<String, DefaultHasher> = BTreeMap::new();
        for row in rows {
            row.hash(groups.entry(row.path()).or_default());
        }
        let paths: Map<String, Value> = groups
            .into_iter()
            .map(|(path, mut hasher)| {
                (self.version(), env!("CARGO_PKG_VERSION")).hash(&mut hasher);
                let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
                (path, json!({ "serverRelativeURL": url }))
            })
            .collect();
        json!({ "paths": paths })
    }

    /// `/openapi/v3/<path>` for a path of the index such as `apis/apps/v1`; `None` for others.
    pub fn openapi_v3(&self, rows: &[ResourceRow], path: &str) -> Option<Value> {
        let rows: Vec<&ResourceRow> = rows.iter().filter(|row| row.path() == path).collect();
        let first = rows.first()?;
        let mut schemas = Schemas::new(self, Notation::V3, &rows);
        let mut paths = Map::new();
        for row in &rows {
            paths::add(row, &mut schemas, &mut paths);
            schemas.add_kind(&row.group, &row.version, &row.list_kind);
        }
        for kind in ["DeleteOptions", "WatchEvent"] {
            schemas.add_kind(&first.group, &first.version, kind);
        }
        schemas.add_named("io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList");
        Some(json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": format!("v{}.0", self.version())},
            "paths": paths,
            "components": {"schemas": schemas.finish()},
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> ResourceRow {
        let all =
            ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let sub = |name: &str, group: &str, kind: &str| Subresource {
            name: name.into(),
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            verbs: ["get", "patch", "update"].map(String::from).to_vec(),
        };
        ResourceRow {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            list_kind: "DeploymentList".into(),
            plural: "deployments".into(),
            namespaced: true,
            verbs: all.map(String::from).to_vec(),
            subresources: vec![
                sub("status", "apps", "Deployment"),
                sub("scale", "autoscaling", "Scale"),
            ],
            custom: None,
        }
    }

    #[test]
    fn a_document_is_complete_in_itself() {
        let schema = Schema::get("1.35").expect("table");
        let rows = [deployments()];
        let index = schema.openapi_v3_index(&rows);
        assert!(index["paths"]["apis/apps/v1"]["serverRelativeURL"].is_string());
        let document = schema.openapi_v3(&rows, "apis/apps/v1").expect("served");
        let text = document.to_string();
        let known = document["components"]["schemas"].as_object().expect("schemas");
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(known.contains_key(name), "{name} is referred to but missing");
        }
        assert!(schema.openapi_v3(&rows, "apis/batch/v1").is_none());
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let schema = Schema::get("1.35").expect("table");
        let document = schema.openapi_v3(&[deployments()], "apis/apps/v1").expect("served");
        let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let parameters = item["patch"]["parameters"].as_array().expect("parameters");
        for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(parameters.iter().any(|p| p["name"] == name && p["in"] == "query"), "{name}");
        }
        assert_eq!(item["patch"]["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert_eq!(item["put"]["x-kubernetes-action"], "put");
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["group"], "apps");
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"][0], "name");
        assert!(containers["description"].is_string());
    }
}
