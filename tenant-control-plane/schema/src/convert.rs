//! Why a value that a patch made does not fit its kind, in the words of upstream's converter.
//!
//! Upstream decodes bodies from text, and patched objects from maps in memory; the two complain in
//! different words. See [`crate::strict`] for the first.

use serde_json::Value;

use crate::table::{FieldType, Scalar, Schema, Type};

impl Schema {
    /// What is wrong with the first value of a wrong type; `None` when all fit.
    pub fn conversion_error(&self, ty: &Type, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                ty.field(name).and_then(|field| self.conversion_error_in(&field.ty, value))
            }),
            other => Some(format!("cannot restore struct from: {}", go_kind(other))),
        }
    }

    fn conversion_error_in(&self, ty: &FieldType, value: &Value) -> Option<String> {
        match (ty, value) {
            (_, Value::Null) => None,
            (FieldType::Object(id), value) => self.conversion_error(self.resolve(*id), value),
            (FieldType::List(inner), Value::Array(items)) => {
                items.iter().find_map(|item| self.conversion_error_in(inner, item))
            }
            (FieldType::List(_), other) => {
                Some(format!("cannot restore slice from {}", go_kind(other)))
            }
            (FieldType::Map(inner), Value::Object(entries)) => {
                entries.values().find_map(|entry| self.conversion_error_in(inner, entry))
            }
            (FieldType::Map(_), other) => {
                Some(format!("cannot restore map from {}", go_kind(other)))
            }
            (FieldType::Scalar(scalar), value) => scalar_error(*scalar, value),
        }
    }
}

/// Types that read themselves from text are left to the reader of text.
fn scalar_error(scalar: Scalar, value: &Value) -> Option<String> {
    let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let (wanted, fits) = match scalar {
        Scalar::String => ("string", value.is_string()),
        Scalar::Bool => ("bool", value.is_boolean()),
        Scalar::Int32 => ("int32", whole),
        Scalar::Int64 => ("int64", whole),
        Scalar::Double => ("float64", value.is_number()),
        _ => return None,
    };
    if fits {
        return None;
    }
    // Go converts between numbers, and from an integer to a character.
    let convertible = match wanted {
        "bool" => false,
        "string" => value.is_number() && !value.is_f64(),
        _ => value.is_number(),
    };
    Some(match convertible {
        true => format!("cannot convert {} to {wanted}", go_kind(value)),
        false => format!("unrecognized type: {wanted}"),
    })
}

/// Go's name for what such a value is in memory.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// A value as Go prints it (`%+v`): `map[metadata:map[labels:x]]`.
pub fn go_text(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", join(items.iter().map(go_text).collect())),
        // Go sorts the keys, and so does this map.
        Value::Object(fields) => {
            let parts = fields.iter().map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", join(parts.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_types_are_told_in_the_words_of_the_converter() {
        let schema = Schema::get("1.35").unwrap();
        let ty = schema.type_of("", "v1", "Pod").unwrap();
        let error = |value: Value| schema.conversion_error(ty, &value);
        let said = |text: &str| Some(text.to_owned());
        let labels = json!({"metadata": {"labels": "invalid"}});
        assert_eq!(error(labels.clone()), said("cannot restore map from string"));
        let spec = |spec: Value| error(json!({ "spec": spec }));
        assert_eq!(spec(json!([])), said("cannot restore struct from: slice"));
        assert_eq!(spec(json!({"containers": {}})), said("cannot restore slice from map"));
        assert_eq!(spec(json!({"hostNetwork": "x"})), said("unrecognized type: bool"));
        assert_eq!(spec(json!({"nodeName": 1})), said("cannot convert int64 to string"));
        assert_eq!(spec(json!({"nodeName": "n", "containers": [{"name": "a"}]})), None);
        assert_eq!(go_text(&labels), "map[metadata:map[labels:invalid]]");
        assert_eq!(go_text(&json!([1, true, null, {}])), "[1 true <nil> map[]]");
    }
}
