//! What extension API servers serve, among what this server serves itself.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Aggregation, Server};
use crate::cache::Caches;
use crate::kinds::custom::version_priority;
use crate::kinds::table::Snapshot;

/// Groups with a higher priority come before the built-in ones.
const BUILT_IN: i64 = 18_000;
/// Groups with a higher priority come before those of custom resources.
const CUSTOM: i64 = 1000;

/// What a server said that it serves.
#[derive(Debug)]
pub struct Document {
    /// Its resources, in the form of the aggregated document.
    resources: Vec<Value>,
    /// Where its schemas are.
    schema: Option<Value>,
}

/// What a server answers when it is asked for its resources. Of another form is no answer: clients
/// read all groups in one document, and one bad entry would cost them all of it.
#[derive(Deserialize)]
struct ResourceList {
    resources: Option<Vec<Resource>>,
}

/// An entry of it; absent and `null` are empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: Option<String>,
    singular_name: Option<String>,
    namespaced: Option<bool>,
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
    verbs: Option<Vec<String>>,
    short_names: Option<Vec<String>>,
    categories: Option<Vec<String>>,
}

impl Document {
    /// From the server's `APIResourceList` and the index of its schemas.
    ///
    /// # Errors
    /// When the list is none.
    pub(super) fn of(server: &Server, served: &[u8], schemas: &[u8]) -> serde_json::Result<Self> {
        let served: ResourceList = serde_json::from_slice(served)?;
        // Servers need not publish schemas.
        let schemas: Value = serde_json::from_slice(schemas).unwrap_or_default();
        let path = format!("apis/{}/{}", server.group, server.version);
        let url = &schemas["paths"][path]["serverRelativeURL"];
        let schema = url.is_string().then(|| json!({"serverRelativeURL": url}));
        Ok(Self { resources: resources(server, served.resources.unwrap_or_default()), schema })
    }
}

/// The entries of an `APIResourceList` as the aggregated document has them.
fn resources(server: &Server, list: Vec<Resource>) -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for resource in list {
        let or = |text: Option<String>, default: &str| {
            text.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let kind = json!({
            "group": or(resource.group, &server.group),
            "version": or(resource.version, &server.version),
            "kind": resource.kind.unwrap_or_default(),
        });
        let verbs = resource.verbs.unwrap_or_default();
        let scope = if resource.namespaced == Some(true) { "Namespaced" } else { "Cluster" };
        let name = resource.name.unwrap_or_default();
        let (parent, sub) = name.split_once('/').unwrap_or((&name, ""));
        let at = *places.entry(parent.to_owned()).or_insert_with(|| {
            // Old clients cannot do without the kind, not even where there is none.
            let none = json!({"group": "", "version": "", "kind": ""});
            let entry =
                json!({"resource": parent, "scope": scope, "verbs": [], "responseKind": none});
            entries.push(entry);
            entries.len() - 1
        });
        let entry = &mut entries[at];
        if !sub.is_empty() {
            let sub = json!({"subresource": sub, "responseKind": kind, "verbs": verbs});
            match entry["subresources"].as_array_mut() {
                Some(list) => list.push(sub),
                None => entry["subresources"] = json!([sub]),
            }
            continue;
        }
        entry["responseKind"] = kind;
        entry["scope"] = scope.into();
        entry["singularResource"] = resource.singular_name.unwrap_or_default().into();
        entry["verbs"] = verbs.into();
        for (key, list) in
            [("shortNames", resource.short_names), ("categories", resource.categories)]
        {
            if let Some(list) = list {
                entry[key] = list.into();
            }
        }
    }
    entries
}

/// A group with the servers of its versions, preferred first.
struct Group<'a> {
    name: &'a str,
    priority: i64,
    versions: Vec<&'a Server>,
}

fn groups<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for server in servers {
        let at = groups.iter().position(|group| group.name == server.group);
        let at = at.unwrap_or_else(|| {
            groups.push(Group { name: &server.group, priority: 0, versions: Vec::new() });
            groups.len() - 1
        });
        groups[at].priority = groups[at].priority.max(server.group_priority);
        groups[at].versions.push(server);
    }
    for group in &mut groups {
        group.versions.sort_by_key(|server| {
            std::cmp::Reverse((server.version_priority, version_priority(&server.version)))
        });
    }
    groups.sort_by_key(|group| (-group.priority, group.name));
    groups
}

/// How one of the two documents is made.
struct Form<'a> {
    /// The name of an entry for a group.
    name: &'a dyn Fn(&Value) -> &Value,
    /// An entry for a group, without versions.
    group: &'a dyn Fn(&str) -> Value,
    /// An entry for a version.
    version: &'a dyn Fn(&Server) -> Value,
}

/// Puts the servers' groups and versions among the items for this server's own groups, of which
/// the first `built_in` are built in.
fn merge(items: &mut Vec<Value>, built_in: usize, groups: &[Group<'_>], form: &Form<'_>) {
    let (mut first, mut custom) = (0, built_in.min(items.len()));
    for group in groups {
        let at = items.iter().position(|item| *(form.name)(item) == group.name);
        let at = at.unwrap_or_else(|| {
            let at = match group.priority {
                priority if priority > BUILT_IN => first,
                priority if priority > CUSTOM => custom,
                _ => items.len(),
            };
            first += usize::from(at == first);
            custom += usize::from(at <= custom);
            items.insert(at, (form.group)(group.name));
            at
        });
        let mut versions = items[at]["versions"].as_array().cloned().unwrap_or_default();
        versions.retain(|own| !group.versions.iter().any(|s| own["version"] == s.version.as_str()));
        versions.extend(group.versions.iter().map(|server| (form.version)(server)));
        items[at]["versions"] = versions.into();
    }
}

fn built_in(table: &Snapshot) -> usize {
    let is_custom = |group: &&str| table.rows().iter().any(|row| row.group == *group && row.custom);
    table.groups().iter().filter(|g| !g.is_empty() && !is_custom(g)).count()
}

impl Aggregation {
    /// Adds the servers' groups to the items of `/apis`.
    pub fn add_groups(&self, caches: &Caches, table: &Snapshot, items: &mut Vec<Value>) {
        let servers = self.servers(caches);
        let form = Form {
            name: &|item| &item["name"],
            group: &|group| json!({"name": group, "versions": []}),
            version: &|s| json!({"groupVersion": format!("{}/{}", s.group, s.version), "version": s.version}),
        };
        merge(items, built_in(table), &groups(servers.iter().map(|s| &**s)), &form);
        for item in items {
            item["preferredVersion"] = item["versions"][0].clone();
        }
    }

    /// Adds the servers' groups to the items of the aggregated document. Of a server that is not
    /// available it has what was last heard.
    pub fn add_documents(&self, caches: &Caches, table: &Snapshot, items: &mut Vec<Value>) {
        let servers = self.servers(caches);
        let form = Form {
            name: &|item| &item["metadata"]["name"],
            group: &|group| json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": []}),
            version: &|server| {
                let document = self.document(&server.name);
                let is_current = server.is_available && document.is_some();
                json!({
                    "version": server.version,
                    "resources": document.map(|d| d.resources.clone()).unwrap_or_default(),
                    "freshness": if is_current { "Current" } else { "Stale" },
                })
            },
        };
        merge(items, built_in(table), &groups(servers.iter().map(|s| &**s)), &form);
    }

    /// Where the servers' schemas are, for the index of `/openapi/v3`.
    pub fn schemas(&self, caches: &Caches) -> Map<String, Value> {
        let servers = self.servers(caches);
        let entry = |server: &std::sync::Arc<Server>| {
            let schema = self.document(&server.name)?.schema.clone()?;
            Some((format!("apis/{}/{}", server.group, server.version), schema))
        };
        servers.iter().filter_map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Server {
        let object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority, "service": {"namespace": "n", "name": "s"},
        }});
        Aggregation::new(None).server(&object).unwrap()
    }

    #[test]
    fn groups_and_versions_come_by_priority() {
        let servers = [
            server("late", "v1", 10, 1),
            server("mid", "v1beta1", 2000, 5),
            server("mid", "v1", 2000, 5),
            server("mid", "v2alpha1", 2000, 9),
            server("apps", "v9", 2000, 9),
            server("first", "v1", 19_000, 1),
        ];
        let form = Form {
            name: &|item| &item["name"],
            group: &|group| json!({"name": group, "versions": []}),
            version: &|server| json!({"version": server.version, "is": "theirs"}),
        };
        let mut items: Vec<Value> = ["apps", "batch", "crd.example.org"]
            .map(|name| json!({"name": name, "versions": [{"version": "v1"}]}))
            .to_vec();
        merge(&mut items, 2, &groups(&servers), &form);
        let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["first", "apps", "batch", "mid", "crd.example.org", "late"]);
        let versions = |at: usize| -> Vec<&str> {
            let versions = items[at]["versions"].as_array().unwrap().iter();
            versions.map(|v| v["version"].as_str().unwrap()).collect()
        };
        assert_eq!(versions(1), ["v1", "v9"]);
        assert_eq!(versions(3), ["v2alpha1", "v1", "v1beta1"]);
    }

    #[test]
    fn a_resource_list_in_the_aggregated_form() {
        let list = json!([
            {"name": "flunders/status", "kind": "Flunder", "namespaced": true, "verbs": ["get"]},
            {"name": "flunders", "singularName": "flunder", "kind": "Flunder", "namespaced": true,
                "verbs": ["list"], "shortNames": ["fl"]},
            {"name": "things", "singularName": "", "kind": "Thing", "namespaced": false,
                "verbs": ["get"], "group": "other", "version": "v3"},
        ]);
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        let of = |list: Value| {
            let list = json!({"resources": list}).to_string();
            Document::of(&server("g", "v1", 1, 1), list.as_bytes(), b"")
        };
        for wrong in [json!([{"name": 5}]), json!(["x"]), json!([{"verbs": [1]}]), json!("x")] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(of(Value::Null).unwrap().resources.is_empty());
        assert_eq!(
            of(list).unwrap().resources,
            [
                json!({"resource": "flunders", "singularResource": "flunder", "verbs": ["list"],
                    "scope": "Namespaced", "shortNames": ["fl"],
                    "responseKind": kind("g", "v1", "Flunder"),
                    "subresources": [{"subresource": "status", "verbs": ["get"],
                        "responseKind": kind("g", "v1", "Flunder")}]}),
                json!({"resource": "things", "singularResource": "", "verbs": ["get"],
                    "scope": "Cluster", "responseKind": kind("other", "v3", "Thing")}),
            ]
        );
    }
}
