//! From JSON to a message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::wire::Writer;
use crate::strict::JSON_SCHEMA;
use crate::table::{Field, FieldType, Scalar, Schema, Type};

pub(super) fn message(schema: &Schema, ty: &Type, object: &Value, out: &mut Writer) {
    let mut fields: Vec<(&Field, &[u32])> =
        ty.fields.iter().filter(|f| !f.tags.is_empty()).map(|f| (f, &*f.tags)).collect();
    fields.sort_by_key(|(_, path)| *path);
    write(schema, &fields, object, out);
}

/// Writes the fields of one message, in the order of their tags. A longer path leads into a nested
/// message, written when any of its fields is there.
fn write(schema: &Schema, fields: &[(&Field, &[u32])], object: &Value, out: &mut Writer) {
    let mut rest = fields;
    while let Some(((field, path), _)) = rest.split_first() {
        let tag = path[0];
        let count = rest.iter().take_while(|(_, path)| path[0] == tag).count();
        let (these, others) = rest.split_at(count);
        rest = others;
        if path.len() == 1 {
            if let Some(value) = object.get(field.name.as_ref()).filter(|v| !v.is_null()) {
                put(schema, field, tag, value, out);
            }
            continue;
        }
        let is_there = |(field, _): &&(&Field, &[u32])| {
            object.get(field.name.as_ref()).is_some_and(|v| !v.is_null())
        };
        if these.iter().any(|field| is_there(&field)) {
            let inner: Vec<(&Field, &[u32])> =
                these.iter().map(|(f, path)| (*f, &path[1..])).collect();
            let mut nested = Writer::default();
            write(schema, &inner, object, &mut nested);
            out.bytes(tag, &nested.finish());
        }
    }
}

fn put(schema: &Schema, field: &Field, tag: u32, value: &Value, out: &mut Writer) {
    match (&field.ty, value) {
        (FieldType::List(inner), Value::Array(items)) if field.wrapped => {
            out.bytes(tag, &wrapped(schema, inner, items));
        }
        (FieldType::List(inner), Value::Array(items)) => {
            items.iter().for_each(|item| single(schema, inner, tag, item, out));
        }
        (FieldType::Map(inner), Value::Object(entries)) => {
            for (key, value) in entries {
                let mut entry = Writer::default();
                entry.text(1, key);
                match (&**inner, value) {
                    (FieldType::List(inner), Value::Array(items)) => {
                        entry.bytes(2, &wrapped(schema, inner, items));
                    }
                    (inner, value) => single(schema, inner, 2, value, &mut entry),
                }
                out.bytes(tag, &entry.finish());
            }
        }
        (ty, value) => single(schema, ty, tag, value, out),
    }
}

fn wrapped(schema: &Schema, inner: &FieldType, items: &[Value]) -> Vec<u8> {
    let mut list = Writer::default();
    items.iter().for_each(|item| single(schema, inner, 1, item, &mut list));
    list.finish()
}

fn single(schema: &Schema, ty: &FieldType, tag: u32, value: &Value, out: &mut Writer) {
    match ty {
        FieldType::Object(id) => {
            let mut nested = Writer::default();
            message(schema, schema.resolve(*id), value, &mut nested);
            out.bytes(tag, &nested.finish());
        }
        FieldType::Scalar(scalar) => self::scalar(schema, *scalar, tag, value, out),
        // No type of the API has a list of lists or a map of maps.
        FieldType::List(_) | FieldType::Map(_) => {}
    }
}

/// Writes a value. One that does not fit its type is left out: types were checked on the way in.
fn scalar(schema: &Schema, scalar: Scalar, tag: u32, value: &Value, out: &mut Writer) {
    let text = value.as_str().unwrap_or_default();
    let mut nested = Writer::default();
    match scalar {
        Scalar::String => return out.text(tag, text),
        Scalar::Bool => return out.varint(tag, u64::from(value.as_bool().unwrap_or_default())),
        Scalar::Int32 | Scalar::Int64 => return out.int(tag, value.as_i64().unwrap_or_default()),
        Scalar::Double => return out.double(tag, value.as_f64().unwrap_or_default()),
        Scalar::Bytes => return out.bytes(tag, &STANDARD.decode(text).unwrap_or_default()),
        Scalar::Quantity => match value {
            Value::String(text) => nested.text(1, text),
            other => nested.text(1, &other.to_string()),
        },
        Scalar::IntOrString => match value {
            Value::String(text) => {
                nested.int(1, 1);
                nested.int(2, 0);
                nested.text(3, text);
            }
            other => {
                nested.int(1, 0);
                nested.int(2, other.as_i64().unwrap_or_default());
                nested.text(3, "");
            }
        },
        Scalar::Time | Scalar::MicroTime => {
            if let Ok(time) = text.parse::<Timestamp>() {
                nested.int(1, time.as_second());
                let nanos = if scalar == Scalar::Time { 0 } else { time.subsec_nanosecond() };
                nested.int(2, i64::from(nanos));
            }
        }
        Scalar::Duration => nested.int(1, crate::duration::parse(text).unwrap_or_default()),
        Scalar::Raw => nested.bytes(1, value.to_string().as_bytes()),
        Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
            schema_or(schema, scalar, value, &mut nested);
        }
    }
    out.bytes(tag, &nested.finish());
}

fn schema_or(schema: &Schema, scalar: Scalar, value: &Value, out: &mut Writer) {
    let Some(ty) = schema.type_named(JSON_SCHEMA) else { return };
    let is_bool = scalar == Scalar::SchemaOrBool;
    match value {
        Value::Bool(flag) => out.varint(1, u64::from(*flag)),
        Value::Object(_) => {
            if is_bool {
                out.varint(1, 1);
            }
            let mut nested = Writer::default();
            message(schema, ty, value, &mut nested);
            out.bytes(if is_bool { 2 } else { 1 }, &nested.finish());
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) => out.text(2, text),
                    other => {
                        let mut nested = Writer::default();
                        message(schema, ty, other, &mut nested);
                        out.bytes(2, &nested.finish());
                    }
                }
            }
        }
        _ => {}
    }
}
