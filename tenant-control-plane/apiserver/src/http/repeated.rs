//! Keys that a YAML document gives twice in one mapping. A parsed value no longer shows them.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// More repetitions than this are not listed: each costs a walk over the document.
const LIMIT: usize = 10;

/// What upstream's strict YAML decoder says about repeated keys, or `None` when there are none. A
/// text that is not YAML has none: decoding it will say what is wrong.
pub fn repeated_keys(yaml: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(yaml).ok()?;
    let mut lines = Vec::new();
    // The reader knows where it is only when it fails, so it is made to fail at each repetition.
    while lines.len() < LIMIT {
        let mut walk = State { skip: lines.len(), found: None };
        let reader = serde_yaml_ng::Deserializer::from_str(text);
        let Err(error) = (Walk { state: &mut walk }).deserialize(reader) else { break };
        let (Some(key), Some(place)) = (walk.found, error.location()) else { break };
        lines.push(format!("\n  line {}: key {key:?} already set in map", place.line()));
    }
    (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:{}", lines.concat()))
}

struct State {
    /// Repetitions that are known already.
    skip: usize,
    found: Option<String>,
}

struct Walk<'a> {
    state: &'a mut State,
}

/// A key of a mapping; fails at a repetition that is not yet known.
struct Key<'a> {
    state: &'a mut State,
    seen: &'a mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if self.seen.insert(key.to_owned()) {
            return Ok(());
        }
        match self.state.skip.checked_sub(1) {
            Some(left) => {
                self.state.skip = left;
                Ok(())
            }
            None => {
                self.state.found = Some(key.to_owned());
                Err(E::custom("repeated"))
            }
        }
    }
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
        f.write_str("any YAML value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while map.next_key_seed(Key { state: self.state, seen: &mut seen })?.is_some() {
            map.next_value_seed(Walk { state: self.state })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk { state: self.state })?.is_some() {}
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
    use super::repeated_keys;

    #[test]
    fn every_repeated_key_is_named_with_its_line() {
        let text = b"\na: 1\nb:\n  c: x\n  c: y\n  d: [{e: 1, e: 2}]\na: 2\n";
        assert_eq!(
            repeated_keys(text).as_deref(),
            Some(
                "yaml: unmarshal errors:\n  line 5: key \"c\" already set in map\n  \
                 line 6: key \"e\" already set in map\n  line 7: key \"a\" already set in map"
            )
        );
        assert_eq!(repeated_keys(b"a: 1\nb: {a: 2}\n"), None);
        assert_eq!(repeated_keys(b"a: [\n"), None);
    }
}
