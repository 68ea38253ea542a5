//! Finds keys that a JSON document gives twice in one object. A parsed value no longer shows them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// More findings than this are not listed: a hostile body must not cost its size again in answers.
const LIMIT: usize = 100;

/// One message `duplicate field "spec.replicas"` for each repeated key, in the order of the
/// document. A body that is not JSON yields nothing: decoding it will say what is wrong.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = String::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let walk = Walk { path: &mut path, found: &mut found };
    // A syntax error ends the walk; what was found before it stays.
    let _ended_early = walk.deserialize(&mut reader).is_err();
    found
}

/// Walks one value, keeping its path in one shared buffer.
struct Walk<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let start = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if start > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if !seen.insert(key) && self.found.len() < LIMIT {
                self.found.push(format!("duplicate field \"{}\"", self.path));
            }
            map.next_value_seed(Walk { path: self.path, found: self.found })?;
            self.path.truncate(start);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let start = self.path.len();
        for index in 0_usize.. {
            self.path.push_str(&format!("[{index}]"));
            let next = seq.next_element_seed(Walk { path: self.path, found: self.found })?;
            self.path.truncate(start);
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
}
