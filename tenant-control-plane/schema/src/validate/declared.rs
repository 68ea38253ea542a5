//! What the table itself says: required texts and allowed values.

use serde_json::Value;

use super::{At, Faults};
use crate::table::{FieldType, Scalar, Schema, Type};

/// Parts of an object that their own rules or nobody checks.
const NOT_CHECKED: [&str; 6] =
    ["apiVersion", "kind", "metadata", "status", "data", "managedFields"];

/// Required by the schema and yet allowed to be empty.
const MAY_BE_EMPTY: [(&str, &str); 7] = [
    ("CSIStorageCapacity", "storageClassName"),
    ("ResourcePool", "name"),
    ("GRPCAction", "service"),
    ("RoleRef", "apiGroup"),
    ("HTTPHeader", "value"),
    ("Sysctl", "value"),
    ("TokenRequest", "audience"),
];

/// Kinds whose top level is all that there is, written by components rather than by people.
const WRITTEN_BY_COMPONENTS: [&str; 2] = ["Event", "Binding"];

pub(super) fn check(schema: &Schema, ty: &Type, object: &Value, faults: &mut Faults) {
    if WRITTEN_BY_COMPONENTS.contains(&ty.short_name()) {
        return;
    }
    for field in ty.fields.iter().filter(|f| !NOT_CHECKED.contains(&f.name.as_ref())) {
        if let Some(value) = object.get(field.name.as_ref()) {
            let at = At::new(&field.name);
            this(schema, &field.ty, &field.values, value, &at, faults);
        } else if field.required && matches!(field.ty, FieldType::Scalar(Scalar::String)) {
            faults.required(&At::new(&field.name), "");
        }
    }
}

fn this(
    schema: &Schema,
    ty: &FieldType,
    allowed: &[crate::table::Name],
    value: &Value,
    at: &At<'_>,
    faults: &mut Faults,
) {
    match (ty, value) {
        (FieldType::Object(id), Value::Object(_)) => {
            below(schema, schema.resolve(*id), value, at, faults)
        }
        (FieldType::List(inner), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                this(schema, inner, allowed, item, &at.index(index), faults);
            }
        }
        (FieldType::Map(inner), Value::Object(entries)) => {
            for (key, entry) in entries {
                this(schema, inner, &[], entry, &at.key(key), faults);
            }
        }
        (FieldType::Scalar(Scalar::String), Value::String(text))
            if !text.is_empty() && !allowed.is_empty() && !allowed.iter().any(|a| a == text) =>
        {
            let allowed: Vec<&str> = allowed.iter().map(AsRef::as_ref).collect();
            faults.unsupported(at, text, &allowed);
        }
        _ => {}
    }
}

fn below(schema: &Schema, ty: &Type, object: &Value, at: &At<'_>, faults: &mut Faults) {
    for field in &ty.fields {
        let here = at.field(&field.name);
        let value = object.get(field.name.as_ref());
        let is_text = matches!(field.ty, FieldType::Scalar(Scalar::String));
        let is_empty = value.is_none_or(|v| v == "");
        let may_be_empty = || MAY_BE_EMPTY.contains(&(ty.short_name(), field.name.as_ref()));
        if field.required && is_text && is_empty && !may_be_empty() {
            faults.required(&here, "");
        } else if let Some(value) = value.filter(|_| field.name != "metadata") {
            this(schema, &field.ty, &field.values, value, &here, faults);
        }
    }
}
