//! Custom resources: their structural schema as a table like the built-in one, and its rules.
//!
//! A definition's schema becomes types of its own [`Schema`], so that unknown fields, pruning,
//! server-side apply and protobuf-less decoding run on the same code as for built-in kinds. Values
//! are checked by [`validate`], since a structural schema says more than a table can hold.
//!
//! Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions".

mod validate;

use serde_json::Value;

use crate::table::{Field, FieldType, Kind, ListKind, Name, Patch, Scalar, Schema, Type, TypeId};

pub use validate::validate;

/// Deepest schema that is read; deeper parts keep whatever they hold.
const MAX_DEPTH: usize = 64;
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Schema {
    /// The table of one version of a custom resource: `schema` is its `openAPIV3Schema`. `self` is
    /// the built-in table, from which the metadata's types come.
    pub fn for_custom(&self, group: &str, version: &str, kind: &str, schema: &Value) -> Schema {
        let out = Schema { version: self.version.clone(), ..Schema::default() };
        let mut builder = Builder { out, metadata: None };
        builder.metadata = builder.import(self, OBJECT_META);
        let reversed: Vec<&str> = group.split('.').rev().collect();
        let name = format!("{}.{version}.{kind}", reversed.join("."));
        let ty = builder.object(&name, schema, true, 0);
        builder.out.kinds.push(Kind {
            group: Name::Owned(group.to_owned()),
            version: Name::Owned(version.to_owned()),
            kind: Name::Owned(kind.to_owned()),
            ty,
        });
        builder.out
    }
}

struct Builder {
    out: Schema,
    /// `ObjectMeta`, imported.
    metadata: Option<TypeId>,
}

impl Builder {
    fn add(&mut self, ty: Type) -> TypeId {
        let id =
            TypeId(u32::try_from(self.out.types.len()).expect("a schema of 3 MiB has fewer types"));
        self.out.by_name.insert(ty.name.clone(), id);
        self.out.types.push(ty);
        id
    }

    /// Copies a type of the built-in table with all that it refers to.
    fn import(&mut self, from: &Schema, name: &str) -> Option<TypeId> {
        if let Some(id) = self.out.by_name.get(name) {
            return Some(*id);
        }
        let source = from.type_named(name)?;
        let id = self.add(Type { fields: Vec::new(), ..source.clone() });
        let fields = source
            .fields
            .iter()
            .map(|field| Field { ty: self.import_type(from, &field.ty), ..field.clone() })
            .collect();
        self.out.types[id.0 as usize].fields = fields;
        Some(id)
    }

    fn import_type(&mut self, from: &Schema, ty: &FieldType) -> FieldType {
        match ty {
            FieldType::Scalar(scalar) => FieldType::Scalar(*scalar),
            FieldType::List(inner) => FieldType::List(Box::new(self.import_type(from, inner))),
            FieldType::Map(inner) => FieldType::Map(Box::new(self.import_type(from, inner))),
            FieldType::Object(id) => {
                let name = from.resolve(*id).name.clone();
                self.import(from, &name).map_or(FieldType::Scalar(Scalar::Raw), FieldType::Object)
            }
        }
    }

    /// Adds an object type. A resource has a kind and metadata whatever its schema says of them.
    fn object(&mut self, name: &str, schema: &Value, is_resource: bool, depth: usize) -> TypeId {
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let name = Name::Owned(name.to_owned());
        let id = self.add(Type { name: name.clone(), fields: Vec::new(), atomic, open });
        let mut fields = Vec::new();
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            if is_resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let ty = self.value(&format!("{name}.{key}"), property, depth + 1);
            fields.push(field(key, ty, property, is_required(schema, key)));
        }
        if let Some(metadata) = self.metadata.filter(|_| is_resource) {
            let text = || FieldType::Scalar(Scalar::String);
            fields.push(field("apiVersion", text(), &Value::Null, false));
            fields.push(field("kind", text(), &Value::Null, false));
            fields.push(field("metadata", FieldType::Object(metadata), &Value::Null, false));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.out.types[id.0 as usize].fields = fields;
        id
    }

    fn value(&mut self, name: &str, schema: &Value, depth: usize) -> FieldType {
        let is_resource = schema["x-kubernetes-embedded-resource"] == true;
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let has_fields = is_resource || schema["properties"].is_object();
        if depth > MAX_DEPTH || (open && !has_fields) {
            return FieldType::Scalar(Scalar::Raw);
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return FieldType::Scalar(Scalar::IntOrString);
        }
        FieldType::Scalar(match schema["type"].as_str() {
            Some("string") => Scalar::String,
            Some("boolean") => Scalar::Bool,
            Some("integer") => Scalar::Int64,
            Some("number") => Scalar::Double,
            Some("array") => {
                let items = self.value(&format!("{name}[]"), &schema["items"], depth + 1);
                return FieldType::List(Box::new(items));
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                let values =
                    self.value(&format!("{name}{{}}"), &schema["additionalProperties"], depth + 1);
                return FieldType::Map(Box::new(values));
            }
            Some("object") | None if has_fields => {
                return FieldType::Object(self.object(name, schema, is_resource, depth));
            }
            _ => Scalar::Raw,
        })
    }
}

fn is_required(schema: &Value, key: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == key))
}

fn field(name: &str, ty: FieldType, schema: &Value, required: bool) -> Field {
    let keys = || schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
    let list = match schema["x-kubernetes-list-type"].as_str() {
        Some("atomic") => Some(ListKind::Atomic),
        Some("set") => Some(ListKind::Set),
        Some("map") => Some(ListKind::Map(
            keys().filter_map(Value::as_str).map(|k| Name::Owned(k.to_owned())).collect(),
        )),
        _ => None,
    };
    Field {
        name: Name::Owned(name.to_owned()),
        tags: Box::default(),
        ty,
        required,
        always_written: false,
        nullable: true,
        wrapped: false,
        list,
        atomic_map: schema["x-kubernetes-map-type"] == "atomic",
        patch: Patch::default(),
        default: schema.get("default").cloned().map(Box::new),
        values: Box::default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_preserved_is_known_and_what_is_embedded_is_a_resource() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}}});
        let built_in = Schema::get("1.35").expect("table");
        let custom = built_in.for_custom("example.com", "v1", "Widget", &schema);
        let ty = custom.type_of("example.com", "v1", "Widget").expect("its kind");
        let mut object = json!({"metadata": {"name": "w", "unknownMeta": 1}, "any": {"x": 1},
            "template": {"kind": "Sub", "metadata": {"name": "s", "unknownSubMeta": 1}, "spec": {"b": 1}}});
        assert_eq!(
            custom.unknown_fields(ty, &object),
            [
                "unknown field \"metadata.unknownMeta\"",
                "unknown field \"template.metadata.unknownSubMeta\"",
                "unknown field \"template.spec.b\""
            ]
        );
        custom.prune(ty, &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"name": "w"}, "any": {"x": 1},
                "template": {"kind": "Sub", "metadata": {"name": "s"}, "spec": {}}})
        );
    }

    #[test]
    fn a_custom_resource_is_seen_like_a_built_in_one() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}}}}}}}});
        let built_in = Schema::get("1.35").expect("table");
        let custom = built_in.for_custom("example.com", "v1", "Widget", &schema);
        let ty = custom.type_of("example.com", "v1", "Widget").expect("its kind");
        assert_eq!(ty.name, "com.example.v1.Widget");
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"name": "w", "labels": {"a": "b"}, "ownerReferences": [{"colour": "red"}]},
            "spec": {"size": 1, "sise": 2, "any": {"x": {"y": 1}}, "ports": [{"name": "a", "prot": 1}]}});
        assert_eq!(
            custom.unknown_fields(ty, &object),
            [
                "unknown field \"metadata.ownerReferences[0].colour\"",
                "unknown field \"spec.ports[0].prot\"",
                "unknown field \"spec.sise\""
            ]
        );
        let ports = custom.field_at(ty, &["spec", "ports"]).expect("ports");
        assert_eq!(ports.list, Some(ListKind::Map(Box::new(["name".into()]))));
    }
}
