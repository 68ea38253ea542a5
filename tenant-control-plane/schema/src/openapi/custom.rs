//! Custom resources in OpenAPI: what a definition's schema looks like when it is published.
//!
//! Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions",
//! "Publish Validation Schema in OpenAPI": version 2 cannot say everything, and kubectl refuses
//! unknown fields wherever properties are given, so what version 2 cannot say is left open there.

use serde_json::{Map, Value, json};

use super::docs::Docs;
use super::schemas::{META, Notation};
use super::{Custom, ResourceRow};

/// What both notations can say.
const KEPT: [&str; 26] = [
    "description",
    "title",
    "type",
    "format",
    "pattern",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "enum",
    "maxProperties",
    "minProperties",
    "required",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];
/// What only version 3 can say.
const ONLY_V3: [&str; 6] = ["default", "nullable", "allOf", "anyOf", "oneOf", "not"];
/// Kinds from whose metadata the descriptions of metadata are taken.
const DESCRIBED: (&str, &str) = ("io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.PodList");

/// Name of a custom kind's definition: `com.example.v1.Widget`.
pub(super) fn name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// Writes the definitions of custom resources.
pub(super) struct Publisher<'d> {
    pub(super) notation: Notation,
    pub(super) docs: &'d mut Docs,
}

impl Publisher<'_> {
    /// The kind itself and its list, with their names.
    pub(super) fn definitions(
        &mut self,
        row: &ResourceRow,
        custom: &Custom,
    ) -> [(String, Value); 2] {
        let kind = self.kind(&custom.schema);
        let list = self.list(row);
        let full = |kind: &str| name(&row.group, &row.version, kind);
        let (kind_name, list_name) = (&row.kind, &row.list_kind);
        [(full(kind_name), identified(kind, row, kind_name, custom)), {
            (full(list_name), identified(list, row, list_name, custom))
        }]
    }

    fn kind(&mut self, schema: &Value) -> Map<String, Value> {
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        if !schema.is_object() || (open && self.notation == Notation::V2) {
            return object();
        }
        let mut out = self.publish(schema);
        self.add_resource_fields(&mut out);
        out
    }

    fn list(&mut self, row: &ResourceRow) -> Map<String, Value> {
        let mut out = object();
        let item = self.notation.reference(&name(&row.group, &row.version, &row.kind));
        let items = match self.notation {
            Notation::V2 => item,
            Notation::V3 => json!({"allOf": [item], "default": {}}),
        };
        out.insert(
            "description".into(),
            format!("{} is a list of {}", row.list_kind, row.kind).into(),
        );
        out.insert("required".into(), json!(["items"]));
        let mut properties = self.type_meta();
        properties.insert(
            "items".into(),
            json!({"type": "array", "items": items,
            "description": format!("The {} in the list.", row.plural)}),
        );
        properties.insert("metadata".into(), self.metadata("ListMeta", DESCRIBED.1));
        out.insert("properties".into(), properties.into());
        out
    }

    fn type_meta(&mut self) -> Map<String, Value> {
        let mut out = Map::new();
        for field in ["apiVersion", "kind"] {
            let text = self.docs.of_field(DESCRIBED.0, field).unwrap_or_default();
            out.insert(field.into(), json!({"type": "string", "description": text}));
        }
        out
    }

    fn metadata(&mut self, short: &str, described: &str) -> Value {
        let reference = self.notation.reference(&format!("{META}.{short}"));
        let mut out = match self.notation {
            Notation::V2 => reference,
            Notation::V3 => json!({"allOf": [reference]}),
        };
        out["description"] = self.docs.of_field(described, "metadata").unwrap_or_default().into();
        out
    }

    fn add_resource_fields(&mut self, out: &mut Map<String, Value>) {
        let fields = self.type_meta();
        let metadata = self.metadata("ObjectMeta", DESCRIBED.0);
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties.extend(fields);
            properties.insert("metadata".into(), metadata);
        }
    }

    fn publish(&mut self, schema: &Value) -> Map<String, Value> {
        let flag = |name: &str| schema[name] == true;
        let v2 = self.notation == Notation::V2;
        let mut out = Map::new();
        let only = if v2 { &[][..] } else { &ONLY_V3[..] };
        for key in KEPT.iter().chain(only) {
            // Nothing is said by null, false or an empty text.
            let says_something =
                |v: &&Value| !matches!(v, Value::Null | Value::Bool(false)) && *v != "";
            let is_data = *key == "default";
            if let Some(value) = schema.get(*key).filter(|v| is_data || says_something(v)) {
                out.insert((*key).to_owned(), value.clone());
            }
        }
        let open = flag("x-kubernetes-preserve-unknown-fields");
        let vague = v2 && (open || flag("nullable"));
        if let Some(Value::Object(properties)) = schema.get("properties").filter(|_| !vague) {
            let published: Map<String, Value> =
                properties.iter().map(|(k, v)| (k.clone(), self.publish(v).into())).collect();
            out.insert("properties".into(), published.into());
        }
        if let Some(items) = schema.get("items").filter(|i| i.is_object() && !vague) {
            out.insert("items".into(), self.publish(items).into());
        }
        match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => {
                out.insert("additionalProperties".into(), self.publish(values).into());
            }
            Some(Value::Bool(any)) => {
                drop(out.insert("additionalProperties".into(), (*any).into()))
            }
            _ => {}
        }
        if v2 {
            soften(schema, &mut out);
        } else if flag("x-kubernetes-int-or-string") && !out.contains_key("anyOf") {
            out.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        if flag("x-kubernetes-embedded-resource") && !(v2 && open) {
            self.add_resource_fields(&mut out);
            let required = out.entry("required").or_insert_with(|| json!([]));
            for name in ["kind", "apiVersion"] {
                if let Some(names) = required.as_array_mut().filter(|n| !n.contains(&name.into())) {
                    names.push(name.into());
                }
            }
        }
        out
    }
}

/// Takes back what version 2, as kubectl reads it, would make stricter than the schema is.
fn soften(schema: &Value, out: &mut Map<String, Value>) {
    let flag = |schema: &Value, name: &str| schema[name] == true;
    let is = |out: &Map<String, Value>, ty: &str| out.get("type").is_some_and(|t| t == ty);
    let open_object = flag(schema, "x-kubernetes-preserve-unknown-fields") && is(out, "object");
    let bare_array = is(out, "array") && !out.contains_key("items");
    if flag(schema, "nullable") || open_object || bare_array {
        out.remove("type");
    }
    let may_be_null = |name: &Value| {
        name.as_str().is_some_and(|name| flag(&schema["properties"][name], "nullable"))
    };
    if let Some(Value::Array(required)) = out.get_mut("required") {
        required.retain(|name| !may_be_null(name));
        if required.is_empty() {
            out.remove("required");
        }
    }
}

fn object() -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), Value::from("object"))])
}

fn identified(
    mut out: Map<String, Value>,
    row: &ResourceRow,
    kind: &str,
    custom: &Custom,
) -> Value {
    out.insert(
        "x-kubernetes-group-version-kind".into(),
        json!([{"group": row.group, "version": row.version, "kind": kind}]),
    );
    if !custom.selectable.is_empty() {
        let fields = custom.selectable.iter().map(|path| json!({"fieldPath": path}));
        out.insert("x-kubernetes-selectable-fields".into(), fields.collect());
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(schema: Value, notation: Notation) -> Value {
        let mut docs = Docs::default();
        Publisher { notation, docs: &mut docs }.publish(&schema).into()
    }

    #[test]
    fn version_2_leaves_open_what_it_cannot_say() {
        let schema = json!({"type": "object", "required": ["a", "b"], "oneOf": [{}], "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"c": {"type": "string"}}},
            "d": {"type": "array"},
            "e": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}]},
        }});
        assert_eq!(
            published(schema.clone(), Notation::V2),
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {}, "b": {"x-kubernetes-preserve-unknown-fields": true}, "d": {},
                "e": {"x-kubernetes-int-or-string": true},
            }})
        );
        assert_eq!(published(schema.clone(), Notation::V3), schema);
    }

    #[test]
    fn an_embedded_resource_has_the_fields_of_a_resource() {
        let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}});
        let out = published(schema, Notation::V2);
        assert_eq!(out["required"], json!(["kind", "apiVersion"]));
        assert!(
            out["properties"]["metadata"]["$ref"]
                .as_str()
                .is_some_and(|r| r.ends_with("ObjectMeta"))
        );
        assert!(out["properties"]["kind"]["description"].as_str().is_some_and(|d| !d.is_empty()));
    }
}
