//! From a message to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{Malformed, Reader, Wire};
use super::{MAGIC, MAX_DEPTH};
use crate::strict::JSON_SCHEMA;
use crate::table::{Field, FieldType, Scalar, Schema, Type};

const TOO_DEEP: Malformed = Malformed("messages are nested too deeply");

pub(super) fn message(
    schema: &Schema,
    ty: &Type,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, Malformed> {
    let mut out = Map::new();
    let fields: Vec<(&Field, &[u32])> = ty.fields.iter().map(|f| (f, &*f.tags)).collect();
    read(schema, &fields, bytes, &mut out, depth)?;
    Ok(out)
}

/// Reads a message into an object. `fields` are the fields that it may hold, each with the rest of
/// its tag path: a path of one tag is a field of this very message, a longer one leads into a
/// nested message whose fields are inline in JSON.
fn read(
    schema: &Schema,
    fields: &[(&Field, &[u32])],
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(TOO_DEEP);
    }
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next_field()? {
        if let Some((field, _)) = fields.iter().find(|(_, path)| *path == [tag]) {
            let name = field.name.as_ref();
            let value = out.entry(name).or_insert(Value::Null);
            add(schema, field, wire, value, depth)?;
            continue;
        }
        let inline: Vec<(&Field, &[u32])> = fields
            .iter()
            .filter(|(_, path)| path.len() > 1 && path[0] == tag)
            .map(|(field, path)| (*field, &path[1..]))
            .collect();
        if !inline.is_empty() {
            read(schema, &inline, wire.bytes()?, out, depth + 1)?;
        }
    }
    Ok(())
}

/// Adds one occurrence of a field to its value: lists and maps occur once per element.
fn add(
    schema: &Schema,
    field: &Field,
    wire: Wire<'_>,
    value: &mut Value,
    depth: usize,
) -> Result<(), Malformed> {
    match &field.ty {
        FieldType::List(inner) if field.wrapped => *value = wrapped(schema, inner, wire, depth)?,
        FieldType::List(inner) => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let Value::Array(items) = value else { return Ok(()) };
            match (&**inner, wire) {
                (
                    FieldType::Scalar(scalar @ (Scalar::Int32 | Scalar::Int64 | Scalar::Bool)),
                    Wire::Bytes(packed),
                ) => {
                    let mut numbers = Reader::new(packed);
                    while !numbers.is_empty() {
                        items.push(self::scalar(
                            schema,
                            *scalar,
                            Wire::Varint(numbers.varint()?),
                            depth,
                        )?);
                    }
                }
                (inner, wire) => items.push(single(schema, inner, wire, depth)?),
            }
        }
        FieldType::Map(inner) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Value::Object(entries) = value else { return Ok(()) };
            let mut reader = Reader::new(wire.bytes()?);
            let (mut key, mut entry) = (String::new(), None);
            while let Some((tag, wire)) = reader.next_field()? {
                match tag {
                    1 => key = wire.text()?,
                    2 => {
                        entry = Some(match &**inner {
                            FieldType::List(items) => wrapped(schema, items, wire, depth)?,
                            inner => single(schema, inner, wire, depth)?,
                        });
                    }
                    _ => {}
                }
            }
            entries.insert(key, entry.unwrap_or_else(|| absent(inner)));
        }
        ty => *value = single(schema, ty, wire, depth)?,
    }
    Ok(())
}

/// A map's value that is not on the wire has its type's zero value.
fn absent(ty: &FieldType) -> Value {
    match ty {
        FieldType::Scalar(Scalar::String | Scalar::Bytes) => Value::from(""),
        FieldType::Scalar(Scalar::Quantity) => Value::from("0"),
        FieldType::Object(_) => Value::Object(Map::new()),
        FieldType::List(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

/// A list inside a message of its own.
fn wrapped(
    schema: &Schema,
    inner: &FieldType,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, Malformed> {
    let mut items = Vec::new();
    let mut reader = Reader::new(wire.bytes()?);
    while let Some((tag, wire)) = reader.next_field()? {
        if tag == 1 {
            items.push(single(schema, inner, wire, depth)?);
        }
    }
    Ok(Value::Array(items))
}

fn single(
    schema: &Schema,
    ty: &FieldType,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, Malformed> {
    match ty {
        FieldType::Object(id) => {
            message(schema, schema.resolve(*id), wire.bytes()?, depth + 1).map(Value::Object)
        }
        FieldType::Scalar(scalar) => self::scalar(schema, *scalar, wire, depth),
        FieldType::List(_) | FieldType::Map(_) => {
            Err(Malformed("a list of lists is not in protobuf"))
        }
    }
}

fn scalar(
    schema: &Schema,
    scalar: Scalar,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, Malformed> {
    Ok(match scalar {
        Scalar::String => wire.text()?.into(),
        Scalar::Bool => (wire.varint()? != 0).into(),
        Scalar::Int32 => (wire.varint()? as i32).into(),
        Scalar::Int64 => (wire.varint()? as i64).into(),
        Scalar::Double => number(wire.double()?),
        Scalar::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Scalar::Quantity => match one(wire, 1)? {
            Some(text) => text.text()?.into(),
            None => "0".into(),
        },
        Scalar::IntOrString => int_or_string(wire)?,
        Scalar::Time => time(wire, "%Y-%m-%dT%H:%M:%SZ")?,
        Scalar::MicroTime => time(wire, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        Scalar::Duration => {
            let nanos = one(wire, 1)?.map(Wire::varint).transpose()?.unwrap_or(0) as i64;
            crate::duration::format(nanos).into()
        }
        Scalar::Raw => match one(wire, 1)? {
            Some(raw) => embedded(schema, raw.bytes()?)?,
            None => Value::Null,
        },
        Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings => {
            schema_or(schema, scalar, wire.bytes()?, depth)?
        }
    })
}

/// A double that is whole reads like an integer, as Go writes it.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The last occurrence of one field of a small message.
fn one(wire: Wire<'_>, wanted: u32) -> Result<Option<Wire<'_>>, Malformed> {
    let mut reader = Reader::new(wire.bytes()?);
    let mut found = None;
    while let Some((tag, value)) = reader.next_field()? {
        if tag == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

fn int_or_string(wire: Wire<'_>) -> Result<Value, Malformed> {
    let is_text = one(wire, 1)?.map(Wire::varint).transpose()? == Some(1);
    Ok(match is_text {
        true => one(wire, 3)?.map(Wire::text).transpose()?.unwrap_or_default().into(),
        false => (one(wire, 2)?.map(Wire::varint).transpose()?.unwrap_or(0) as i32).into(),
    })
}

/// An empty message is Go's zero time, which JSON writes as `null`.
fn time(wire: Wire<'_>, format: &str) -> Result<Value, Malformed> {
    let Some(seconds) = one(wire, 1)? else { return Ok(Value::Null) };
    let seconds = seconds.varint()? as i64;
    let nanos = one(wire, 2)?.map(Wire::varint).transpose()?.unwrap_or(0) as i32;
    let time = Timestamp::new(seconds, nanos).map_err(|_| Malformed("a time is out of range"))?;
    Ok(time.strftime(format).to_string().into())
}

/// Raw bytes: JSON, or another object with its envelope.
fn embedded(schema: &Schema, bytes: &[u8]) -> Result<Value, Malformed> {
    if bytes.starts_with(&MAGIC) {
        return schema.from_protobuf(bytes);
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|_| Malformed("an embedded object is not JSON"))
}

fn schema_or(
    schema: &Schema,
    scalar: Scalar,
    bytes: &[u8],
    depth: usize,
) -> Result<Value, Malformed> {
    let ty = schema.type_named(JSON_SCHEMA).ok_or(Malformed("no type for JSON schemas"))?;
    let whole = |wire: Wire<'_>| message(schema, ty, wire.bytes()?, depth + 1).map(Value::Object);
    let mut reader = Reader::new(bytes);
    let (mut single, mut list, mut flag) = (None, Vec::new(), None);
    while let Some((tag, wire)) = reader.next_field()? {
        match (scalar, tag) {
            (Scalar::SchemaOrBool, 1) => flag = Some(wire.varint()? != 0),
            (Scalar::SchemaOrBool, 2) | (_, 1) => single = Some(whole(wire)?),
            (Scalar::SchemaOrArray, 2) => list.push(whole(wire)?),
            (Scalar::SchemaOrStrings, 2) => list.push(wire.text()?.into()),
            _ => {}
        }
    }
    Ok(match (single, flag) {
        (Some(single), _) => single,
        (None, Some(flag)) => flag.into(),
        (None, None) if scalar == Scalar::SchemaOrBool => false.into(),
        (None, None) => Value::Array(list),
    })
}
