//! `components.schemas` (version 3) and `definitions` (version 2).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::ResourceRow;
use super::custom::{self, Publisher};
use super::docs::Docs;
use crate::table::{Field, FieldType, ListKind, Scalar, Schema, Type, TypeId};

/// Which version of OpenAPI is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Notation {
    /// A reference to a definition of the same document.
    pub(crate) fn reference(self, name: &str) -> Value {
        match self {
            Notation::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Notation::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON_SCHEMAS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Collects the types that a document needs, and those that they need.
pub(crate) struct Schemas<'s> {
    schema: &'s Schema,
    pub(crate) notation: Notation,
    wanted: BTreeSet<TypeId>,
    scalars: BTreeSet<String>,
    /// Rows of custom resources.
    custom: Vec<&'s ResourceRow>,
}

impl<'s> Schemas<'s> {
    /// Nothing yet but the custom ones among the rows.
    pub(crate) fn new(schema: &'s Schema, notation: Notation, rows: &[&'s ResourceRow]) -> Self {
        let custom: Vec<_> = rows.iter().copied().filter(|r| r.custom.is_some()).collect();
        let (wanted, scalars) = (BTreeSet::new(), BTreeSet::new());
        let mut schemas = Self { schema, notation, wanted, scalars, custom };
        if !schemas.custom.is_empty() {
            for name in ["ObjectMeta", "ListMeta"] {
                schemas.add_named(&format!("{META}.{name}"));
            }
        }
        schemas
    }

    /// Adds the type of a kind and returns a reference to it, or `None` when there is no such kind.
    pub(crate) fn add_kind(&mut self, group: &str, version: &str, kind: &str) -> Option<Value> {
        let is_wanted = |r: &&ResourceRow| r.group == group && r.version == version;
        if self
            .custom
            .iter()
            .filter(|r| is_wanted(r))
            .any(|r| r.kind == kind || r.list_kind == kind)
        {
            return Some(self.notation.reference(&custom::name(group, version, kind)));
        }
        let name = self.schema.type_of(group, version, kind)?.name.to_string();
        self.add_named(&name)
    }

    /// The same for a type by its full name.
    pub(crate) fn add_named(&mut self, name: &str) -> Option<Value> {
        let id = *self.schema.by_name.get(name)?;
        self.want(id);
        Some(self.notation.reference(name))
    }

    fn want(&mut self, id: TypeId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.wanted.insert(id) {
                let fields = &self.schema.resolve(id).fields;
                open.extend(fields.iter().filter_map(|field| field.ty.object()));
            }
        }
    }

    /// Writes the custom resources alone.
    pub(crate) fn finish_custom(self) -> BTreeMap<String, Value> {
        self.custom_definitions(&mut Docs::default())
    }

    fn custom_definitions(&self, docs: &mut Docs) -> BTreeMap<String, Value> {
        let mut publisher = Publisher { notation: self.notation, docs };
        let rows = self.custom.iter().filter_map(|row| Some((row, row.custom.as_ref()?)));
        rows.flat_map(|(row, custom)| publisher.definitions(row, custom)).collect()
    }

    /// Writes all collected types, and the custom resources.
    pub(crate) fn finish(mut self) -> BTreeMap<String, Value> {
        let mut docs = Docs::default();
        let mut out = self.custom_definitions(&mut docs);
        let mut kinds: BTreeMap<TypeId, Vec<Value>> = BTreeMap::new();
        for kind in self.schema.kinds() {
            kinds.entry(kind.ty).or_default().push(json!({
                "group": kind.group, "version": kind.version, "kind": kind.kind,
            }));
        }
        for id in std::mem::take(&mut self.wanted) {
            let ty = self.schema.resolve(id);
            let mut object = self.object(ty, &mut docs);
            if let Some(kinds) = kinds.remove(&id) {
                object.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
            }
            out.insert(ty.name.to_string(), Value::Object(object));
        }
        for name in std::mem::take(&mut self.scalars) {
            let mut value = scalar_schema(&name, self.notation);
            describe(&mut value, docs.of_type(&name));
            out.insert(name, Value::Object(value));
        }
        out
    }

    fn object(&mut self, ty: &Type, docs: &mut Docs) -> Map<String, Value> {
        let mut properties = Map::new();
        for field in &ty.fields {
            let mut property = self.property(field);
            describe(&mut property, docs.of_field(&ty.name, &field.name));
            properties.insert(field.name.to_string(), Value::Object(property));
        }
        let required: Vec<&str> =
            ty.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
        let mut out = Map::new();
        out.insert("type".to_owned(), "object".into());
        describe(&mut out, docs.of_type(&ty.name));
        if !properties.is_empty() {
            out.insert("properties".to_owned(), Value::Object(properties));
        }
        if !required.is_empty() {
            out.insert("required".to_owned(), required.into());
        }
        if ty.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        out
    }

    fn property(&mut self, field: &Field) -> Map<String, Value> {
        let mut out = match self.value(&field.ty) {
            Value::Object(out) => out,
            _ => Map::new(),
        };
        // Version 3 ignores what stands beside `$ref`, so the reference goes one level down.
        if let (Notation::V3, Some(reference)) = (self.notation, out.remove("$ref")) {
            out.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            if field.always_written && matches!(field.ty, FieldType::Object(_)) && !field.nullable {
                out.insert("default".to_owned(), json!({}));
            }
        }
        let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
        // Version 2 never had defaults: kubectl's old validation does not know them.
        if let Some(default) = field.default.as_ref().filter(|_| self.notation == Notation::V3) {
            put("default", (**default).clone());
        }
        if !field.values.is_empty() && matches!(field.ty, FieldType::Scalar(Scalar::String)) {
            put("enum", field.values.iter().map(|v| Value::from(v.as_ref())).collect());
        }
        match &field.list {
            Some(ListKind::Atomic) => put("x-kubernetes-list-type", "atomic".into()),
            Some(ListKind::Set) => put("x-kubernetes-list-type", "set".into()),
            Some(ListKind::Map(keys)) => {
                put("x-kubernetes-list-type", "map".into());
                put(
                    "x-kubernetes-list-map-keys",
                    keys.iter().map(|k| Value::from(k.as_ref())).collect(),
                );
            }
            None => {}
        }
        if field.atomic_map {
            put("x-kubernetes-map-type", "atomic".into());
        }
        let strategies = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")];
        let strategies: Vec<&str> =
            strategies.iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
        if !strategies.is_empty() {
            put("x-kubernetes-patch-strategy", strategies.join(",").into());
        }
        if let Some(key) = &field.patch.merge_key {
            put("x-kubernetes-patch-merge-key", key.as_ref().into());
        }
        out
    }

    fn value(&mut self, ty: &FieldType) -> Value {
        match ty {
            FieldType::Object(id) => {
                self.notation.reference(&self.schema.resolve(*id).name.clone())
            }
            FieldType::List(inner) => json!({"type": "array", "items": self.item(inner)}),
            FieldType::Map(inner) => {
                json!({"type": "object", "additionalProperties": self.item(inner)})
            }
            FieldType::Scalar(scalar) => self.scalar(*scalar),
        }
    }

    /// An element: upstream gives string elements a default in version 3.
    fn item(&mut self, ty: &FieldType) -> Value {
        let mut value = self.value(ty);
        if self.notation == Notation::V3 {
            match (ty, value.get("$ref").cloned()) {
                (FieldType::Object(_), Some(reference)) => {
                    value = json!({"allOf": [{"$ref": reference}], "default": {}});
                }
                (FieldType::Scalar(Scalar::String), _) => value["default"] = "".into(),
                _ => {}
            }
        }
        value
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let named = match scalar {
            Scalar::String => return json!({"type": "string"}),
            Scalar::Bool => return json!({"type": "boolean"}),
            Scalar::Int32 => return json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => return json!({"type": "integer", "format": "int64"}),
            Scalar::Double => return json!({"type": "number", "format": "double"}),
            Scalar::Bytes => return json!({"type": "string", "format": "byte"}),
            Scalar::Duration => return json!({"type": "string"}),
            Scalar::Raw => return json!({"type": "object"}),
            Scalar::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(),
            Scalar::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(),
            Scalar::Time => format!("{META}.Time"),
            Scalar::MicroTime => format!("{META}.MicroTime"),
            Scalar::SchemaOrArray => format!("{JSON_SCHEMAS}.JSONSchemaPropsOrArray"),
            Scalar::SchemaOrBool => format!("{JSON_SCHEMAS}.JSONSchemaPropsOrBool"),
            Scalar::SchemaOrStrings => format!("{JSON_SCHEMAS}.JSONSchemaPropsOrStringArray"),
        };
        let reference = self.notation.reference(&named);
        self.scalars.insert(named);
        reference
    }
}

fn describe(out: &mut Map<String, Value>, text: Option<&str>) {
    if let Some(text) = text.filter(|t| !t.is_empty()) {
        out.insert("description".to_owned(), text.into());
    }
}

fn scalar_schema(name: &str, notation: Notation) -> Map<String, Value> {
    let value = match (name.rsplit('.').next().unwrap_or(name), notation) {
        ("Quantity", Notation::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ("IntOrString", Notation::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        ("Quantity", Notation::V2) => json!({"type": "string"}),
        ("IntOrString", Notation::V2) => json!({"type": "string", "format": "int-or-string"}),
        ("Time" | "MicroTime", _) => json!({"type": "string", "format": "date-time"}),
        _ => json!({}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
