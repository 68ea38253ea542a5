//! Custom resources: definitions become rows at run time.

use machinery::Status;
use serde_json::{Value, json};

use super::row::{Action, Column, Name, Row, Subresource, Verbs, namespaced_row};
use super::table::Table;
use crate::cache::{Caches, Filter};
use crate::convert::webhook::Conversion;
use crate::registry::Call;
use crate::strategy::Strategy;

/// Where definitions are stored.
pub const DEFINITIONS_PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions";

/// Makes the table agree with the definitions in the cache. Returns the prefixes whose objects have
/// to be loaded: their caches are new, or read them another way than before.
pub fn refresh(table: &Table, caches: &Caches, revision: i64) -> Vec<String> {
    let resource =
        machinery::GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let Some(definitions) = caches.resource(&resource) else { return Vec::new() };
    let found = definitions.list(&Filter::default(), None, 0, 0);
    let rows: Vec<Row> = found.objects.iter().flat_map(|o| rows_of(&o.value())).collect();
    let old = table.snapshot();
    table.set_custom(rows);
    let new = table.snapshot();
    let prefixes = |rows: &[std::sync::Arc<Row>]| -> std::collections::BTreeSet<String> {
        let custom = rows.iter().filter(|r| r.custom);
        custom.filter_map(|r| r.prefix.as_ref().map(|p| p.to_string())).collect()
    };
    let (before, after) = (prefixes(old.rows()), prefixes(new.rows()));
    for prefix in before.difference(&after) {
        caches.remove(prefix);
    }
    let mut fresh = Vec::new();
    for row in new.rows().iter().filter(|r| r.custom) {
        let is_new = caches.add(row, table, revision);
        let Some(cache) = caches.of(row) else { continue };
        if cache.set_defaults(row.stored_defaults.clone()) || is_new {
            fresh.push(cache.prefix.clone());
        }
    }
    fresh
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn names(value: &Value) -> Vec<Name> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|v| Some(Name::Owned(v.as_str()?.to_owned()))).collect()
}

/// The versions that a definition has served: none before it is established.
pub fn served_versions(definition: &Value) -> impl Iterator<Item = &Value> {
    let conditions = definition["status"]["conditions"].as_array();
    let is_established = conditions.is_some_and(|conditions| {
        conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True")
    });
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(move |version| is_established && version["served"] == true)
}

/// One row per served version.
fn rows_of(definition: &Value) -> Vec<Row> {
    let mut served: Vec<&Value> = served_versions(definition).collect();
    served.sort_by_key(|v| {
        std::cmp::Reverse(version_priority(v["name"].as_str().unwrap_or_default()))
    });
    served.into_iter().map(|version| row_of(definition, version)).collect()
}

/// Versions in the order in which discovery prefers them: v2, v1, v1beta2, v1alpha1, others.
///
/// Source: Kubernetes documentation, "Versions in CustomResourceDefinitions: Version priority".
pub fn version_priority(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..end].parse().ok()?;
        let (class, minor) = match &rest[end..] {
            "" => (3, 0),
            tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                (Some(n), _) => (2, n.parse().ok()?),
                (_, Some(n)) => (1, n.parse().ok()?),
                _ => return None,
            },
        };
        Some((class, major, minor))
    };
    parse().unwrap_or((0, 0, 0))
}

fn pointer(path: &Value) -> String {
    path.as_str().unwrap_or_default().replace('.', "/")
}

fn row_of(definition: &Value, version: &Value) -> Row {
    let spec = &definition["spec"];
    let names_of = &spec["names"];
    let group = text(&spec["group"]);
    let plural = text(&names_of["plural"]);
    let kind = text(&names_of["kind"]);
    let mut row = namespaced_row();
    row.prefix = Some(format!("/registry/{group}/{plural}").into());
    row.group = group.into();
    row.version = text(&version["name"]).into();
    row.kind = kind.clone().into();
    row.list_kind = text(&names_of["listKind"]).into();
    row.plural = plural.into();
    row.singular = text(&names_of["singular"]).into();
    row.short_names = names(&names_of["shortNames"]);
    row.categories = names(&names_of["categories"]);
    row.namespaced = spec["scope"] != "Cluster";
    row.custom = true;
    if !definition["metadata"]["deletionTimestamp"].is_null() {
        row.verbs = Verbs::ALL.but(Verbs::CREATE);
    }
    let strategy = Strategy { generation: true, ..Strategy::default() };
    row.strategy = Strategy { unconditional_update: false, ..strategy };
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|v| v["storage"] == json!(true));
    row.stored_defaults = stored
        .map(|v| &v["schema"]["openAPIV3Schema"])
        .filter(|schema| crate::structural::has_defaults(schema))
        .map(|schema| std::sync::Arc::new(schema.clone()));
    let mut ever_stored = definition["status"]["storedVersions"].as_array().into_iter().flatten();
    if versions.len() > 1 || ever_stored.any(|stored| *stored != version["name"]) {
        row.storage_version = stored.map(|v| format!("{}/{}", row.group, text(&v["name"])));
        row.conversion = Conversion::of(spec);
    }
    let subresources = &version["subresources"];
    if subresources["status"].is_object() {
        row.subresources.push(Subresource {
            name: "status",
            action: Action::Status,
            group_version: None,
            kind: kind.into(),
            verbs: Verbs::STATUS,
        });
    }
    let scale = &subresources["scale"];
    if scale.is_object() {
        row.subresources.push(Subresource {
            name: "scale",
            action: Action::Scale,
            group_version: Some(("autoscaling", "v1")),
            kind: "Scale".into(),
            verbs: Verbs::STATUS,
        });
        let selector = scale["labelSelectorPath"].as_str().map(|p| p.replace('.', "/"));
        row.scale_paths = Some((
            pointer(&scale["specReplicasPath"]),
            pointer(&scale["statusReplicasPath"]),
            selector,
        ));
    }
    row.fields = selectable_fields(version);
    row.columns = columns(version);
    let schema = &version["schema"]["openAPIV3Schema"];
    let built_in = schema::Schema::versions().last().and_then(schema::Schema::get);
    let types = built_in.map(|b| b.for_custom(&row.group, &row.version, &row.kind, schema));
    row.types = types.map(std::sync::Arc::new);
    row.schema = Some(std::sync::Arc::new(schema.clone()));
    row
}

fn selectable_fields(version: &Value) -> Vec<super::Field> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let paths = fields.map(|field| text(&field["jsonPath"]));
    paths
        .map(|path| super::Field {
            name: path.trim_start_matches('.').to_owned().into(),
            pointer: path.replace('.', "/").into(),
            absent: "",
        })
        .collect()
}

fn columns(version: &Value) -> Vec<Column> {
    let column = |c: &Value| Column {
        definition: json!({
            "name": c["name"], "type": c["type"], "format": c["format"].as_str().unwrap_or(""),
            "description": c["description"].as_str().unwrap_or(""),
            "priority": c["priority"].as_i64().unwrap_or(0),
        }),
        path: text(&c["jsonPath"]),
    };
    let declared: Vec<_> =
        version["additionalPrinterColumns"].as_array().into_iter().flatten().map(column).collect();
    if !declared.is_empty() {
        return declared;
    }
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
    vec![column(&age)]
}

/// What is wrong with a custom object by its schema.
pub fn check(call: &Call, object: &Value) -> Vec<machinery::Cause> {
    call.row.schema.as_deref().map(|s| schema::custom::validate(s, object)).unwrap_or_default()
}

/// Brings a custom object into the shape that its schema gives it: fields that the schema does not
/// have are dropped, defaults are filled in.
pub fn settle(call: &Call, object: &mut Value) -> Result<(), Status> {
    object["apiVersion"] = call.row.api_version().into();
    if let Some(schema) = &call.row.schema {
        crate::structural::settle(schema, object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_converted_while_some_may_be_stored_in_another_version() {
        let converts = |stored: &[&str]| {
            let definition = json!({
                "spec": {"group": "example.com", "scope": "Namespaced",
                    "names": {"plural": "hosts", "kind": "Host"},
                    "versions": [{"name": "v2", "served": true, "storage": true}],
                    "conversion": {"strategy": "Webhook", "webhook": {}}},
                "status": {"storedVersions": stored,
                    "conditions": [{"type": "Established", "status": "True"}]},
            });
            let rows = rows_of(&definition);
            assert_eq!(rows[0].storage_version.is_some(), rows[0].conversion.is_some());
            rows[0].converts()
        };
        assert!(!converts(&["v2"]));
        assert!(converts(&["v1", "v2"]));
    }
}
