//! Reading fields of objects that are held as JSON.

use serde_json::Value;

/// A field as text, empty when it is absent.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list, none when it is absent.
pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
