//! Sets of fields, as `metadata.managedFields` records them.
//!
//! `FieldsV1` is a tree: `f:<name>` is a field, `k:<keys>` an element of a list by its keys,
//! `v:<value>` an element of a set, `i:<n>` one of another list, and `.` says that the place itself belongs to the set.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Deepest tree that is read: deeper ones come from no object that we could store.
const MAX_DEPTH: usize = 128;

/// A tree of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// The place itself belongs to the set.
    pub(crate) here: bool,
    /// What is below, by the encoded path element.
    pub(crate) below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Reads a `fieldsV1` value. What is not an object reads as nothing.
    pub(crate) fn from_json(value: &Value) -> Self {
        let mut root = Self::read(value, 0);
        root.here = false;
        root
    }

    fn read(value: &Value, depth: usize) -> Self {
        let Value::Object(fields) = value else { return Self::default() };
        if depth > MAX_DEPTH {
            return Self::default();
        }
        let below = fields
            .iter()
            .filter(|(name, _)| *name != ".")
            .map(|(name, inner)| (name.clone(), Self::read(inner, depth + 1)))
            .collect();
        Self { here: fields.is_empty() || fields.contains_key("."), below }
    }

    /// The `fieldsV1` value.
    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if self.here && !self.below.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (name, inner) in &self.below {
            fields.insert(name.clone(), inner.to_json());
        }
        Value::Object(fields)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// The place below, made when absent.
    pub(crate) fn at(&mut self, element: String) -> &mut FieldSet {
        self.below.entry(element).or_default()
    }

    pub(crate) fn union(&mut self, other: &FieldSet) {
        self.here |= other.here;
        for (name, inner) in &other.below {
            self.below.entry(name.clone()).or_default().union(inner);
        }
    }

    /// Takes out every place that belongs to the other set.
    pub(crate) fn subtract(&mut self, other: &FieldSet) {
        if other.here {
            self.here = false;
        }
        for (name, inner) in &other.below {
            if let Some(mine) = self.below.get_mut(name) {
                mine.subtract(inner);
                if mine.is_empty() {
                    self.below.remove(name);
                }
            }
        }
    }

    /// Places that belong to both.
    pub(crate) fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut both = FieldSet { here: self.here && other.here, below: BTreeMap::new() };
        for (name, inner) in &self.below {
            if let Some(theirs) = other.below.get(name) {
                let common = inner.intersection(theirs);
                if !common.is_empty() {
                    both.below.insert(name.clone(), common);
                }
            }
        }
        both
    }

    /// Every place of the set as text: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.paths_below(&mut String::new(), &mut found);
        found
    }

    fn paths_below(&self, path: &mut String, found: &mut Vec<String>) {
        if self.here {
            found.push(path.clone());
        }
        for (element, inner) in &self.below {
            let length = path.len();
            push_element(path, element);
            inner.paths_below(path, found);
            path.truncate(length);
        }
    }
}

fn push_element(path: &mut String, element: &str) {
    let written = match element.split_once(':') {
        Some(("f", name)) => write!(path, ".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(path, "[{}]", parts.join(","))
        }
        Some(("v", value)) => write!(path, "[={value}]"),
        Some(("i", index)) => write!(path, "[{index}]"),
        _ => write!(path, "[{element}]"),
    };
    written.expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_survives_its_notation() {
        let text = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
            "f:metadata": {"f:finalizers": {"v:\"x\"": {}}}});
        let set = FieldSet::from_json(&text);
        assert_eq!(set.to_json(), text);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers[=\"x\"]",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.replicas"
            ]
        );
    }

    #[test]
    fn subtraction_leaves_no_empty_branches() {
        let mut set = FieldSet::from_json(&json!({"f:a": {"f:b": {}}, "f:c": {}}));
        set.subtract(&FieldSet::from_json(&json!({"f:a": {"f:b": {}}})));
        assert_eq!(set.to_json(), json!({"f:c": {}}));
    }
}
