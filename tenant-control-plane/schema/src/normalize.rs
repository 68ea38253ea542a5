//! Brings a decoded object into the form in which upstream would write it again.
//!
//! Upstream decodes a body into a Go struct and encodes that: `null` and empty optional values
//! vanish, structs that are not behind a pointer appear as `{}`, quantities and times come out in
//! their canonical notation. Clients compare what they read with what they sent, so the stored
//! object has to go through the same.

use machinery::Quantity;
use serde_json::{Map, Value, json};

use crate::table::{Field, FieldType, Scalar, Schema, Type};

impl Schema {
    /// Normalises an object in place. Unknown fields are left alone: see [`Schema::prune`].
    pub fn normalize(&self, ty: &Type, value: &mut Value) {
        if let Value::Object(fields) = value {
            self.normalize_object(ty, fields);
        }
    }

    fn normalize_object(&self, ty: &Type, fields: &mut Map<String, Value>) {
        for (name, value) in fields.iter_mut() {
            if let Some(field) = ty.field(name) {
                self.normalize_value(&field.ty, value);
            }
        }
        fields.retain(|name, value| ty.field(name).is_none_or(|field| is_written(field, value)));
        for field in ty.fields.iter().filter(|f| f.always_written && !f.nullable) {
            if fields.contains_key(field.name.as_ref()) {
                continue;
            }
            if let Some(mut zero) = zero(&field.ty) {
                self.normalize_value(&field.ty, &mut zero);
                fields.insert(field.name.to_string(), zero);
            }
        }
    }

    fn normalize_value(&self, ty: &FieldType, value: &mut Value) {
        match (ty, &mut *value) {
            (FieldType::Object(id), Value::Object(fields)) => {
                self.normalize_object(self.resolve(*id), fields);
            }
            (FieldType::List(inner), Value::Array(items)) => {
                for item in items {
                    if item.is_null() {
                        *item = zero(inner).unwrap_or(Value::Null);
                    }
                    self.normalize_value(inner, item);
                }
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                for entry in entries.values_mut() {
                    if entry.is_null() {
                        *entry = zero(inner).unwrap_or(Value::Null);
                    }
                    self.normalize_value(inner, entry);
                }
            }
            (FieldType::Scalar(scalar), value) => {
                if let Some(schema) = self.schema_in(*scalar) {
                    match value {
                        Value::Array(items) => {
                            items.iter_mut().for_each(|item| self.normalize(schema, item));
                        }
                        value => self.normalize(schema, value),
                    }
                } else if let Some(canonical) = canonical(*scalar, value) {
                    *value = canonical;
                }
            }
            _ => {}
        }
    }
}

/// Whether upstream would write the value: not for `null`, and not for what `omitempty` omits.
fn is_written(field: &Field, value: &Value) -> bool {
    if value.is_null() {
        return false;
    }
    if field.always_written {
        return true;
    }
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => {
            !entries.is_empty() || !matches!(field.ty, FieldType::Map(_)) || field.nullable
        }
        _ if field.nullable => true,
        Value::String(text) => {
            !text.is_empty() || matches!(field.ty, FieldType::Scalar(Scalar::Raw))
        }
        Value::Bool(on) => *on || !matches!(field.ty, FieldType::Scalar(Scalar::Bool)),
        Value::Number(n) => {
            n.as_f64() != Some(0.0)
                || !matches!(field.ty, FieldType::Scalar(Scalar::Int32 | Scalar::Int64))
        }
        Value::Null => false,
    }
}

/// What a Go value of this type is before anything is assigned, where that is not `null`.
fn zero(ty: &FieldType) -> Option<Value> {
    match ty {
        FieldType::Object(_) => Some(json!({})),
        FieldType::List(_) | FieldType::Map(_) => None,
        FieldType::Scalar(scalar) => match scalar {
            Scalar::String => Some(json!("")),
            Scalar::Bool => Some(json!(false)),
            Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString | Scalar::Double => Some(json!(0)),
            Scalar::Quantity => Some(json!("0")),
            _ => None,
        },
    }
}

fn canonical(scalar: Scalar, value: &Value) -> Option<Value> {
    match (scalar, value) {
        (Scalar::Quantity, Value::String(_) | Value::Number(_)) => {
            Quantity::from_json(value).ok().map(|q| q.to_string().into())
        }
        (Scalar::Time, Value::String(text)) if !is_canonical_time(text) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            Some(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into())
        }
        (Scalar::MicroTime, Value::String(text)) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            Some(time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into())
        }
        _ => None,
    }
}

/// `2006-01-02T15:04:05Z`: the usual case, which needs no parsing.
fn is_canonical_time(text: &str) -> bool {
    text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(group: &str, version: &str, kind: &str, mut object: Value) -> Value {
        let schema = Schema::get("1.35").expect("table");
        let ty = schema.type_of(group, version, kind).expect("kind");
        schema.normalize(ty, &mut object);
        object
    }

    #[test]
    fn empty_optional_values_vanish_and_structs_appear() {
        let out = normalized(
            "apps",
            "v1",
            "Deployment",
            json!({
                "metadata": {"name": "a", "labels": {}, "annotations": null},
                "spec": {"replicas": 0, "paused": false, "minReadySeconds": 0,
                    "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}],
                        "containers": [{"name": "c", "command": [], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}}},
            }),
        );
        assert_eq!(out["metadata"], json!({"name": "a"}));
        assert_eq!(out["status"], json!({}));
        assert_eq!(out["spec"]["replicas"], 0, "a pointer: zero is a value");
        assert!(out["spec"].get("paused").is_none());
        assert_eq!(out["spec"]["strategy"], json!({}));
        let pod = &out["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(
            pod["containers"][0]["resources"],
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert!(pod["containers"][0].get("command").is_none());
    }

    #[test]
    fn schemas_in_schemas_lose_what_says_nothing() {
        let says_nothing = json!({"$schema": "", "type": "string", "nullable": false, "title": "",
            "x-kubernetes-int-or-string": false});
        let out = normalized(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {
                "a": {"items": says_nothing}, "b": {"additionalProperties": says_nothing}}}}}]}}),
        );
        let schema = &out["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        assert_eq!(schema["a"]["items"], json!({"type": "string"}));
        assert_eq!(schema["b"]["additionalProperties"], json!({"type": "string"}));
    }

    #[test]
    fn times_are_written_in_utc() {
        let out = normalized(
            "coordination.k8s.io",
            "v1",
            "Lease",
            json!({
            "metadata": {"creationTimestamp": "2020-01-01T01:00:00+01:00"},
            "spec": {"renewTime": "2020-01-01T00:00:00.5Z"}}),
        );
        assert_eq!(out["metadata"]["creationTimestamp"], "2020-01-01T00:00:00Z");
        assert_eq!(out["spec"]["renewTime"], "2020-01-01T00:00:00.500000Z");
    }
}
