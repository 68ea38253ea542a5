//! Finds keys that a JSON document gives twice in one object, and, along a type, keys that the
//! type does not have. A parsed value no longer shows the former, nor the order of the latter.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::table::{FieldType, Schema, Type};

/// More findings than this are not listed: a hostile body must not cost its size again in answers.
const LIMIT: usize = 100;

/// One message `duplicate field "spec.replicas"` for each repeated key, in the order of the
/// document. A body that is not JSON yields nothing: decoding it will say what is wrong.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    walk(None, Place::Any, json)
}

impl Schema {
    /// One message for each repeated key and each key that the type does not have
    /// (`unknown field "spec.foo"`), in the order of the document, as upstream's decoder of
    /// built-in kinds has them.
    pub fn unknown_and_duplicate_fields(&self, ty: &Type, json: &[u8]) -> Vec<String> {
        walk(Some(self), Place::Type(ty), json)
    }
}

fn walk(schema: Option<&Schema>, place: Place<'_>, json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = String::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let walk = Walk { schema, place, path: &mut path, found: &mut found };
    // A syntax error ends the walk; what was found before it stays.
    let _ended_early = walk.deserialize(&mut reader).is_err();
    found
}

/// What is known about the shape of a value.
#[derive(Clone, Copy)]
enum Place<'s> {
    Any,
    Type(&'s Type),
    Of(&'s FieldType),
}

impl<'s> Place<'s> {
    /// The shape of a member; `None` when there may be no such member.
    fn member(self, schema: Option<&'s Schema>, name: &str) -> Option<Place<'s>> {
        let of_type = |ty: &'s Type| match ty.field(name) {
            Some(field) => Some(Place::Of(&field.ty)),
            None => ty.open.then_some(Place::Any),
        };
        match (self, schema) {
            (Place::Type(ty), _) => of_type(ty),
            (Place::Of(FieldType::Object(id)), Some(schema)) => of_type(schema.resolve(*id)),
            (Place::Of(FieldType::Map(inner)), _) => Some(Place::Of(inner)),
            (Place::Of(FieldType::Scalar(scalar)), Some(schema)) => {
                schema.schema_in(*scalar).map_or(Some(Place::Any), of_type)
            }
            _ => Some(Place::Any),
        }
    }

    /// The shape of an element.
    fn element(self) -> Place<'s> {
        match self {
            Place::Of(FieldType::List(inner)) => Place::Of(inner),
            // One schema or several.
            Place::Of(scalar @ FieldType::Scalar(_)) => Place::Of(scalar),
            _ => Place::Any,
        }
    }
}

/// Walks one value, keeping its path in one shared buffer.
struct Walk<'a, 's> {
    schema: Option<&'s Schema>,
    place: Place<'s>,
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl Walk<'_, '_> {
    fn report(&mut self, what: &str) {
        let text = format!("{what} field \"{}\"", self.path);
        if self.found.len() < LIMIT && !self.found.contains(&text) {
            self.found.push(text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let start = self.path.len();
        let (schema, place) = (self.schema, self.place);
        while let Some(key) = map.next_key::<String>()? {
            if start > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            match place.member(schema, &key) {
                Some(place) => {
                    if !seen.insert(key) {
                        self.report("duplicate");
                    }
                    let Walk { path, found, .. } = &mut self;
                    map.next_value_seed(Walk { schema, place, path, found })?;
                }
                None => {
                    self.report("unknown");
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.path.truncate(start);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Walk { schema, place, path, found } = self;
        let start = path.len();
        for index in 0_usize.. {
            path.push_str(&format!("[{index}]"));
            let walk = Walk { schema, place: place.element(), path, found };
            let next = seq.next_element_seed(walk)?;
            path.truncate(start);
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_is_found_at_any_depth() {
        let body = br#"{"a":1,"b":{"c":[{"d":1,"d":2},{"d":3}]},"a":null}"#;
        assert_eq!(
            duplicate_fields(body),
            ["duplicate field \"b.c[0].d\"", "duplicate field \"a\""]
        );
        assert!(duplicate_fields(b"{\"a\":").is_empty());
        let deep = "[".repeat(100_000);
        assert!(duplicate_fields(deep.as_bytes()).is_empty(), "depth is bounded by the reader");
    }

    #[test]
    fn along_a_type_unknown_keys_are_found_in_the_order_of_the_document() {
        let schema = Schema::get("1.35").expect("table");
        let ty = schema.type_of("apps", "v1", "Deployment").expect("kind");
        let body = br#"{"kind": "Deployment", "metadata": {"labels": {"any": "x"}}, "spec": {"unknownField": {"a": 1, "a": 2},
            "replicas": 2, "replicas": 3, "template": {"spec": {"containers": [{"name": "a", "imagge": ""}]}}}}"#;
        assert_eq!(
            schema.unknown_and_duplicate_fields(ty, body),
            [
                "unknown field \"spec.unknownField\"",
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.template.spec.containers[0].imagge\""
            ]
        );
    }
}
