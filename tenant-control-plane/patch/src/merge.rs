//! RFC 7396, JSON merge patch.

use serde_json::{Map, Value};

use crate::PatchError;

/// Applies a merge patch: objects merge, `null` removes, anything else replaces.
///
/// Unlike the RFC, a patch that is not an object is refused, since it would replace the whole
/// Kubernetes object by something that is none.
pub fn merge_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(changes) = patch else {
        return Err(PatchError::Malformed("a merge patch must be a JSON object".to_owned()));
    };
    let mut result = object.clone();
    merge_into(&mut result, changes);
    Ok(result)
}

/// Merges in place. The depth is that of the patch, which its reader has bounded.
pub(crate) fn merge_into(target: &mut Value, changes: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in changes {
        match change {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(inner) => {
                merge_into(fields.entry(name.clone()).or_insert(Value::Null), inner);
            }
            other => {
                fields.insert(name.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (object, patch, wanted) in cases {
            assert_eq!(merge_patch(&object, &patch), Ok(wanted), "{object} {patch}");
        }
        assert!(merge_patch(&json!({}), &json!([1])).is_err());
    }
}
