//! Reads a JSON object against the table: wrong types, unknown fields, pruning.
//!
//! Field names are case-sensitive, `null` is the same as absent. The texts follow upstream's
//! decoder, since clients show them to people: `unknown field "spec.foo"`.

use machinery::GroupVersionKind;
use serde_json::{Map, Value};

use crate::place::At;
use crate::table::{FieldType, Scalar, Schema, Type};

/// Name of the type behind JSON schemas in custom resource definitions.
pub(crate) const JSON_SCHEMA: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl Schema {
    /// Checks that every known field has the type that the table gives it. Unknown fields are
    /// ignored. The error names the first field at fault, in the words of upstream's decoder.
    pub fn check_types(&self, ty: &Type, value: &Value) -> Result<(), String> {
        match value {
            Value::Object(fields) => self.check_object(ty, fields, None),
            other => Err(mismatch(other, ty.short_name(), None, "object")),
        }
    }

    /// One message `unknown field "spec.foo"` for each field that the type does not have, in the
    /// order of the document.
    pub fn unknown_fields(&self, ty: &Type, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        if let Value::Object(fields) = value {
            self.unknown_in(ty, fields, None, &mut found);
        }
        found
    }

    /// Removes the fields that the type does not have.
    pub fn prune(&self, ty: &Type, value: &mut Value) {
        let Value::Object(fields) = value else { return };
        fields.retain(|name, _| ty.open || ty.field(name).is_some());
        for (name, inner) in fields {
            if let Some(field) = ty.field(name) {
                self.prune_value(&field.ty, inner);
            }
        }
    }

    fn prune_value(&self, ty: &FieldType, value: &mut Value) {
        match (ty, value) {
            (FieldType::Object(id), value) => self.prune(self.resolve(*id), value),
            (FieldType::List(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.prune_value(inner, item));
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                entries.values_mut().for_each(|entry| self.prune_value(inner, entry));
            }
            (FieldType::Scalar(scalar), value) => {
                if let Some(ty) = self.schema_in(*scalar) {
                    match value {
                        Value::Array(items) => {
                            items.iter_mut().for_each(|item| self.prune(ty, item))
                        }
                        value => self.prune(ty, value),
                    }
                }
            }
            _ => {}
        }
    }

    /// The type that a schema-or-something scalar may hold.
    pub(crate) fn schema_in(&self, scalar: Scalar) -> Option<&Type> {
        use Scalar::{SchemaOrArray, SchemaOrBool, SchemaOrStrings};
        matches!(scalar, SchemaOrArray | SchemaOrBool | SchemaOrStrings)
            .then(|| self.type_named(JSON_SCHEMA))
            .flatten()
    }

    fn unknown_in(
        &self,
        ty: &Type,
        fields: &Map<String, Value>,
        at: Option<&At<'_>>,
        found: &mut Vec<String>,
    ) {
        for (name, value) in fields {
            let here = At::under(at, name);
            match ty.field(name) {
                Some(field) => self.unknown_in_value(&field.ty, value, &here, found),
                None if ty.open => {}
                None => found.push(format!("unknown field \"{here}\"")),
            }
        }
    }

    fn unknown_in_value(
        &self,
        ty: &FieldType,
        value: &Value,
        at: &At<'_>,
        found: &mut Vec<String>,
    ) {
        match (ty, value) {
            (FieldType::Object(id), Value::Object(fields)) => {
                self.unknown_in(self.resolve(*id), fields, Some(at), found);
            }
            (FieldType::List(inner), Value::Array(items)) if inner.object().is_some() => {
                for (index, item) in items.iter().enumerate() {
                    self.unknown_in_value(inner, item, &at.index(index), found);
                }
            }
            (FieldType::Map(inner), Value::Object(entries)) if inner.object().is_some() => {
                for (key, entry) in entries {
                    self.unknown_in_value(inner, entry, &at.field(key), found);
                }
            }
            (FieldType::Scalar(scalar), Value::Object(fields)) => {
                if let Some(ty) = self.schema_in(*scalar) {
                    self.unknown_in(ty, fields, Some(at), found);
                }
            }
            _ => {}
        }
    }

    fn check_object(
        &self,
        ty: &Type,
        fields: &Map<String, Value>,
        at: Option<&At<'_>>,
    ) -> Result<(), String> {
        for (name, value) in fields {
            if let Some(field) = ty.field(name) {
                self.check_value(ty, &field.ty, value, &At::under(at, name))?;
            }
        }
        Ok(())
    }

    /// Checks a value below a field of `owner`, which errors name.
    fn check_value(
        &self,
        owner: &Type,
        ty: &FieldType,
        value: &Value,
        at: &At<'_>,
    ) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let wrong = |wanted: &str| Err(mismatch(value, owner.short_name(), Some(at), wanted));
        match (ty, value) {
            (FieldType::Object(id), Value::Object(fields)) => {
                self.check_object(self.resolve(*id), fields, Some(at))
            }
            (FieldType::List(inner), Value::Array(items)) => {
                items.iter().try_for_each(|item| self.check_value(owner, inner, item, at))
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                entries.values().try_for_each(|entry| self.check_value(owner, inner, entry, at))
            }
            (FieldType::Scalar(scalar), value) => match check_scalar(*scalar, value) {
                Ok(()) => Ok(()),
                Err(Fault::Type(wanted)) => wrong(wanted),
                Err(Fault::Text(text)) => Err(text),
            },
            (ty, _) => wrong(&self.go_type(ty)),
        }
    }

    fn go_type(&self, ty: &FieldType) -> String {
        match ty {
            FieldType::Object(id) => go_name(self.resolve(*id)),
            FieldType::List(inner) => format!("[]{}", self.go_type(inner)),
            FieldType::Map(inner) => format!("map[string]{}", self.go_type(inner)),
            FieldType::Scalar(scalar) => scalar_name(*scalar).to_owned(),
        }
    }
}

/// The message of a 400 for a body that could not be decoded as its kind.
pub fn cannot_be_handled(gvk: &GroupVersionKind, why: &str) -> String {
    let GroupVersionKind { version, kind, .. } = gvk;
    format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}")
}

/// What [`cannot_be_handled`] says about unknown and duplicate fields.
pub fn strict_decoding_error(found: &[String]) -> String {
    format!("strict decoding error: {}", found.join(", "))
}

enum Fault {
    /// The JSON type does not fit; this is the type that would.
    Type(&'static str),
    /// The JSON type fits but not the value.
    Text(String),
}

fn check_scalar(scalar: Scalar, value: &Value) -> Result<(), Fault> {
    let fits = match scalar {
        Scalar::String | Scalar::Duration => value.is_string(),
        Scalar::Bool => value.is_boolean(),
        Scalar::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Scalar::Int64 => value.is_i64(),
        Scalar::Double => value.is_number(),
        Scalar::IntOrString => match value {
            Value::String(_) => true,
            other => other.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        },
        Scalar::Quantity => return check_quantity(value),
        Scalar::Time | Scalar::MicroTime => return check_time(value),
        Scalar::Bytes => return check_bytes(value),
        Scalar::Raw | Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
            true
        }
    };
    if fits { Ok(()) } else { Err(Fault::Type(scalar_name(scalar))) }
}

fn check_quantity(value: &Value) -> Result<(), Fault> {
    match value {
        Value::String(text) if text.parse::<machinery::Quantity>().is_err() => Err(Fault::Text(
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_owned(),
        )),
        Value::String(_) | Value::Number(_) => Ok(()),
        _ => Err(Fault::Type("resource.Quantity")),
    }
}

fn check_time(value: &Value) -> Result<(), Fault> {
    let Value::String(text) = value else { return Err(Fault::Type("v1.Time")) };
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(());
    }
    Err(Fault::Text(format!(
        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
    )))
}

fn check_bytes(value: &Value) -> Result<(), Fault> {
    use base64::Engine as _;
    let Value::String(text) = value else { return Err(Fault::Type("[]uint8")) };
    let compact: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    match base64::engine::general_purpose::STANDARD.decode(compact) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(at) => at,
                base64::DecodeError::InvalidPadding => text.len(),
            };
            Err(Fault::Text(format!("illegal base64 data at input byte {at}")))
        }
    }
}

fn scalar_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes => "[]uint8",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Duration => "v1.Duration",
        Scalar::Raw => "runtime.RawExtension",
        Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
            "v1.JSONSchemaProps"
        }
    }
}

/// `v1.PodSpec`: the last two parts of the full name.
fn go_name(ty: &Type) -> String {
    let mut parts = ty.name.rsplitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}"),
        _ => ty.name.to_string(),
    }
}

fn mismatch(value: &Value, owner: &str, at: Option<&At<'_>>, wanted: &str) -> String {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(n) if wanted.starts_with("int") => format!("number {n}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    match at {
        None => format!("json: cannot unmarshal {found} into Go value of type {owner}"),
        Some(at) => format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{at} of type {wanted}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> (&'static Schema, &'static Type) {
        let schema = Schema::get("1.35").expect("table");
        (schema, schema.type_of("apps", "v1", "Deployment").expect("kind"))
    }

    #[test]
    fn unknown_fields_are_named_with_their_full_path() {
        let (schema, ty) = deployment();
        let object = json!({"metadata": {"labels": {"any": "x"}}, "spec": {"foo": 1, "template": {
            "spec": {"containers": [{"name": "a", "imagge": "x"}]}}}});
        assert_eq!(
            schema.unknown_fields(ty, &object),
            [
                "unknown field \"spec.foo\"",
                "unknown field \"spec.template.spec.containers[0].imagge\""
            ]
        );
        let mut pruned = object;
        schema.prune(ty, &mut pruned);
        assert!(schema.unknown_fields(ty, &pruned).is_empty());
        assert_eq!(pruned["metadata"]["labels"]["any"], "x");
    }

    #[test]
    fn a_wrong_type_is_explained_like_upstream_does() {
        let (schema, ty) = deployment();
        let check = |object: Value| schema.check_types(ty, &object).expect_err("wrong");
        assert_eq!(
            check(json!({"spec": {"replicas": "three"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            check(json!({"spec": {"replicas": 99999999999_i64}})),
            "json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert!(
            check(json!({"spec": {"template": {"spec": {"containers": {}}}}}))
                .contains("[]v1.Container")
        );
        assert!(
            check(json!({"metadata": {"creationTimestamp": "yesterday"}})).contains("parsing time")
        );
        assert!(check(json!([])).contains("cannot unmarshal array"));
    }

    #[test]
    fn quantities_may_be_numbers_and_ports_may_be_names() {
        let (schema, _) = deployment();
        let ty = schema.type_of("", "v1", "Pod").expect("kind");
        let pod = |cpu: Value, port: Value| {
            json!({"spec": {"containers": [{
            "resources": {"limits": {"cpu": cpu}},
            "livenessProbe": {"httpGet": {"port": port}}}]}})
        };
        assert!(schema.check_types(ty, &pod(json!(1), json!("http"))).is_ok());
        assert!(schema.check_types(ty, &pod(json!("100m"), json!(80))).is_ok());
        assert!(schema.check_types(ty, &pod(json!("1x0"), json!(80))).is_err());
        assert!(schema.check_types(ty, &pod(json!("1"), json!(true))).is_err());
    }
}
