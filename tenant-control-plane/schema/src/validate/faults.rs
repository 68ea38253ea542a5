//! Findings, each with its place in the object.

use machinery::Cause;
use serde_json::Value;

use crate::place::At;

/// Findings, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Faults {
    found: Vec<Cause>,
}

/// More findings than this help nobody, and a hostile object could have millions.
const LIMIT: usize = 200;

impl Faults {
    pub(crate) fn into_causes(self) -> Vec<Cause> {
        self.found
    }

    fn add(&mut self, reason: &str, at: &At<'_>, message: String) {
        if self.found.len() < LIMIT {
            self.found.push(Cause { reason: reason.to_owned(), message, field: at.to_string() });
        }
    }

    pub(crate) fn required(&mut self, at: &At<'_>, detail: &str) {
        self.add("FieldValueRequired", at, detailed("Required value".to_owned(), detail));
    }

    pub(crate) fn invalid(&mut self, at: &At<'_>, value: impl Into<Value>, detail: &str) {
        let value: Value = value.into();
        self.add("FieldValueInvalid", at, detailed(format!("Invalid value: {value}"), detail));
    }

    pub(crate) fn unsupported(&mut self, at: &At<'_>, value: &str, allowed: &[&str]) {
        let mut allowed: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        allowed.sort();
        let text =
            format!("Unsupported value: {value:?}: supported values: {}", allowed.join(", "));
        self.add("FieldValueNotSupported", at, text);
    }

    pub(crate) fn duplicate(&mut self, at: &At<'_>, value: impl Into<Value>) {
        self.duplicate_because(at, value, "");
    }

    pub(crate) fn duplicate_because(&mut self, at: &At<'_>, value: impl Into<Value>, detail: &str) {
        let value: Value = value.into();
        self.add("FieldValueDuplicate", at, detailed(format!("Duplicate value: {value}"), detail));
    }

    pub(crate) fn forbidden(&mut self, at: &At<'_>, detail: &str) {
        self.add("FieldValueForbidden", at, format!("Forbidden: {detail}"));
    }

    pub(crate) fn not_found(&mut self, at: &At<'_>, value: impl Into<Value>) {
        let value: Value = value.into();
        self.add("FieldValueNotFound", at, format!("Not found: {value}"));
    }

    pub(crate) fn too_long(&mut self, at: &At<'_>, max: usize) {
        self.add("FieldValueTooLong", at, format!("Too long: may not be more than {max} bytes"));
    }

    pub(crate) fn too_many(&mut self, at: &At<'_>, found: usize, max: usize) {
        self.add(
            "FieldValueTooMany",
            at,
            format!("Too many: {found}: must have at most {max} items"),
        );
    }

    /// Checks a text by one of the rules of `machinery::names`.
    pub(crate) fn text(
        &mut self,
        at: &At<'_>,
        text: &str,
        rule: fn(&str) -> Result<(), Vec<String>>,
    ) {
        for fault in rule(text).err().unwrap_or_default() {
            self.invalid(at, text, &fault);
        }
    }

    /// Checks that a number lies between two others, both included.
    pub(crate) fn range(&mut self, at: &At<'_>, number: i64, from: i64, to: i64) {
        if !(from..=to).contains(&number) {
            self.invalid(at, number, &format!("must be between {from} and {to}, inclusive"));
        }
    }

    /// Checks that a number, if there is one, is not negative.
    pub(crate) fn not_negative(&mut self, object: &Value, name: &str, at: &At<'_>) {
        if let Some(number) = object.get(name).and_then(Value::as_i64).filter(|n| *n < 0) {
            self.invalid(&at.field(name), number, "must be greater than or equal to 0");
        }
    }
}

fn detailed(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}

/// A string field, empty when absent.
pub(super) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of a list field, none when absent.
pub(super) fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a map field, none when absent.
pub(super) fn entries<'a>(
    object: &'a Value,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(name).and_then(Value::as_object).into_iter().flatten()
}

/// An integer field.
pub(super) fn int(object: &Value, name: &str) -> Option<i64> {
    object.get(name).and_then(Value::as_i64)
}

/// True when a field is there and `true`.
pub(super) fn is_set(object: &Value, name: &str) -> bool {
    object.get(name) == Some(&Value::Bool(true))
}
