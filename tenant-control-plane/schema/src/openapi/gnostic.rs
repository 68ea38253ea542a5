//! OpenAPI v2 as protobuf: the messages of `openapi.v2` (gnostic), which client-go asks for.
//!
//! A document in JSON is walked along a table of messages; what the table does not have is left
//! out. Source: `github.com/google/gnostic-models`, `openapiv2/OpenAPIv2.proto` (field numbers).

use serde_json::{Map, Value};

use crate::protobuf::wire::Writer;

/// How a JSON member becomes a field.
enum Slot {
    Text,
    Texts,
    Bool,
    Int,
    Double,
    /// Any JSON, as text in the message `Any`.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// A message whose field 1 is repeated: pairs of name and message.
    Named(&'static Message),
    /// A message whose only field, number 1, holds one or more texts.
    TypeItem,
    /// A message whose only field, number 1, holds one schema.
    Wrapped,
    /// A schema or a boolean.
    SchemaOrBool,
    /// Named responses, each wrapped in a choice.
    Responses,
    /// Parameters, each wrapped in choices by where it stands.
    Parameters,
}

struct Message {
    /// JSON name, field number, and how it is written.
    fields: &'static [(&'static str, u32, Slot)],
    /// Field number of members that begin with `x-`.
    extensions: u32,
}

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Slot::Text),
        ("format", 2, Slot::Text),
        ("title", 3, Slot::Text),
        ("description", 4, Slot::Text),
        ("default", 5, Slot::Any),
        ("multipleOf", 6, Slot::Double),
        ("maximum", 7, Slot::Double),
        ("exclusiveMaximum", 8, Slot::Bool),
        ("minimum", 9, Slot::Double),
        ("exclusiveMinimum", 10, Slot::Bool),
        ("maxLength", 11, Slot::Int),
        ("minLength", 12, Slot::Int),
        ("pattern", 13, Slot::Text),
        ("maxItems", 14, Slot::Int),
        ("minItems", 15, Slot::Int),
        ("uniqueItems", 16, Slot::Bool),
        ("maxProperties", 17, Slot::Int),
        ("minProperties", 18, Slot::Int),
        ("required", 19, Slot::Texts),
        ("enum", 20, Slot::Anys),
        ("additionalProperties", 21, Slot::SchemaOrBool),
        ("type", 22, Slot::TypeItem),
        ("items", 23, Slot::Wrapped),
        ("allOf", 24, Slot::Many(&SCHEMA)),
        ("properties", 25, Slot::Named(&SCHEMA)),
        ("readOnly", 27, Slot::Bool),
        ("example", 30, Slot::Any),
    ],
    extensions: 31,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Slot::Texts),
        ("summary", 2, Slot::Text),
        ("description", 3, Slot::Text),
        ("operationId", 5, Slot::Text),
        ("produces", 6, Slot::Texts),
        ("consumes", 7, Slot::Texts),
        ("parameters", 8, Slot::Parameters),
        ("responses", 9, Slot::Responses),
        ("schemes", 10, Slot::Texts),
        ("deprecated", 11, Slot::Bool),
    ],
    extensions: 13,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Slot::One(&OPERATION)),
        ("put", 3, Slot::One(&OPERATION)),
        ("post", 4, Slot::One(&OPERATION)),
        ("delete", 5, Slot::One(&OPERATION)),
        ("options", 6, Slot::One(&OPERATION)),
        ("head", 7, Slot::One(&OPERATION)),
        ("patch", 8, Slot::One(&OPERATION)),
        ("parameters", 9, Slot::Parameters),
    ],
    extensions: 10,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Slot::Text), ("schema", 2, Slot::Wrapped)],
    extensions: 5,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Slot::Text),
        ("name", 2, Slot::Text),
        ("in", 3, Slot::Text),
        ("required", 4, Slot::Bool),
        ("schema", 5, Slot::One(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Slot::Bool),
        ("in", 2, Slot::Text),
        ("description", 3, Slot::Text),
        ("name", 4, Slot::Text),
        ("type", 6, Slot::Text),
        ("format", 7, Slot::Text),
        ("uniqueItems", 20, Slot::Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Slot::Bool),
        ("in", 2, Slot::Text),
        ("description", 3, Slot::Text),
        ("name", 4, Slot::Text),
        ("type", 5, Slot::Text),
        ("format", 6, Slot::Text),
        ("uniqueItems", 19, Slot::Bool),
    ],
    extensions: 22,
};

static INFO: Message =
    Message { fields: &[("title", 1, Slot::Text), ("version", 2, Slot::Text)], extensions: 7 };

/// Field numbers of `Document`, each the head of a length-delimited field.
pub(super) const PATHS: u32 = 8;
pub(super) const DEFINITIONS: u32 = 9;

/// `swagger` and `info` of the document.
pub(super) fn head(info: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(1, "2.0");
    out.bytes(2, &message(&INFO, info));
    out.finish()
}

/// The tag and length in front of `length` bytes.
pub(super) fn length_prefix(tag: u32, length: usize) -> Vec<u8> {
    let mut out = Writer::default();
    out.length_prefix(tag, length);
    out.finish()
}

/// Entries of `Paths`, ready to be put behind others.
pub(super) fn paths(paths: &Map<String, Value>) -> Vec<u8> {
    named(2, &PATH_ITEM, paths)
}

/// Entries of `Definitions`, ready to be put behind others.
pub(super) fn definitions(definitions: &Map<String, Value>) -> Vec<u8> {
    named(1, &SCHEMA, definitions)
}

fn named(tag: u32, of: &Message, entries: &Map<String, Value>) -> Vec<u8> {
    let mut out = Writer::default();
    for (name, value) in entries {
        out.bytes(tag, &pair(name, &message(of, value)));
    }
    out.finish()
}

/// `NamedSomething`: field 1 the name, field 2 the message.
fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(1, name);
    out.bytes(2, value);
    out.finish()
}

fn wrapped(tag: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(tag, inner);
    out.finish()
}

/// `Any`: field 2 is YAML, of which JSON is a part.
fn any(value: &Value) -> Vec<u8> {
    wrapped(2, value.to_string().as_bytes())
}

fn message(of: &Message, value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    let Value::Object(members) = value else { return out.finish() };
    for (name, tag, slot) in of.fields {
        if let Some(value) = members.get(*name) {
            write(&mut out, *tag, slot, value);
        }
    }
    for (name, value) in members.iter().filter(|(name, _)| name.starts_with("x-")) {
        out.bytes(of.extensions, &pair(name, &any(value)));
    }
    out.finish()
}

fn write(out: &mut Writer, tag: u32, slot: &Slot, value: &Value) {
    let items = || value.as_array().into_iter().flatten();
    match slot {
        Slot::Text => out.text(tag, value.as_str().unwrap_or_default()),
        Slot::Texts => items().filter_map(Value::as_str).for_each(|text| out.text(tag, text)),
        Slot::Bool => out.varint(tag, u64::from(value == true)),
        Slot::Int => out.int(tag, value.as_i64().unwrap_or_default()),
        Slot::Double => out.double(tag, value.as_f64().unwrap_or_default()),
        Slot::Any => out.bytes(tag, &any(value)),
        Slot::Anys => items().for_each(|item| out.bytes(tag, &any(item))),
        Slot::One(of) => out.bytes(tag, &message(of, value)),
        Slot::Many(of) => items().for_each(|item| out.bytes(tag, &message(of, item))),
        Slot::Named(of) => {
            if let Value::Object(entries) = value {
                out.bytes(tag, &named(1, of, entries));
            }
        }
        Slot::TypeItem => {
            let mut inner = Writer::default();
            let one = value.as_str().into_iter();
            one.chain(items().filter_map(Value::as_str)).for_each(|text| inner.text(1, text));
            out.bytes(tag, &inner.finish());
        }
        Slot::Wrapped => out.bytes(tag, &wrapped(1, &message(&SCHEMA, value))),
        Slot::SchemaOrBool => {
            let mut inner = Writer::default();
            match value {
                Value::Bool(flag) => inner.varint(2, u64::from(*flag)),
                schema => inner.bytes(1, &message(&SCHEMA, schema)),
            }
            out.bytes(tag, &inner.finish());
        }
        Slot::Responses => {
            let mut inner = Writer::default();
            for (code, response) in value.as_object().into_iter().flatten() {
                inner.bytes(1, &pair(code, &wrapped(1, &message(&RESPONSE, response))));
            }
            out.bytes(tag, &inner.finish());
        }
        Slot::Parameters => items().for_each(|p| out.bytes(tag, &wrapped(1, &parameter(p)))),
    }
}

/// `Parameter`: a choice between a body and the rest, of which the latter is a choice again.
fn parameter(value: &Value) -> Vec<u8> {
    match value["in"].as_str() {
        Some("body") => wrapped(1, &message(&BODY_PARAMETER, value)),
        Some("path") => wrapped(2, &wrapped(4, &message(&PATH_PARAMETER, value))),
        _ => wrapped(2, &wrapped(3, &message(&QUERY_PARAMETER, value))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_written_field_by_field() {
        let schema = json!({"type": "string", "maxLength": 3, "x-a": [1], "unheard-of": 1});
        // 11: maxLength; 22: a TypeItem; 31: a pair of the name and Any with YAML.
        let expected =
            b"\x58\x03\xb2\x01\x08\x0a\x06string\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]";
        assert_eq!(message(&SCHEMA, &schema), expected);
    }

    #[test]
    fn a_choice_says_which_one_it_is() {
        let closed = json!({"additionalProperties": false});
        assert_eq!(message(&SCHEMA, &closed), b"\xaa\x01\x02\x10\x00");
        let in_path = json!({"in": "path", "name": "n"});
        assert_eq!(parameter(&in_path), b"\x12\x0b\x22\x09\x12\x04path\x22\x01n");
    }
}
