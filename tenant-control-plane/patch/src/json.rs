//! RFC 6902, JSON patch, with RFC 6901 pointers.
//!
//! A patch of a few kilobytes can ask for gigabytes by copying an object into itself again and
//! again. Every value that an operation touches is therefore counted against a budget, and the
//! depth of the result is bounded.

use serde_json::{Map, Value};

use crate::PatchError;

/// Most operations in one patch, as upstream.
const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that all copies of one patch may add, as upstream: the limit of a request body.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting of the result: what our own JSON reader accepts.
const MAX_DEPTH: usize = 120;
/// Most values that all operations of one patch may visit.
const MAX_VISITED: usize = 4_000_000;

/// Applies a JSON patch document (a list of operations) and returns the new object.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed("a JSON patch must be a list of operations".to_owned()));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut document = object.clone();
    let mut budget = Budget { visits: MAX_VISITED, copied: 0 };
    for operation in operations {
        apply(&mut document, operation, &mut budget)?;
    }
    Ok(document)
}

struct Budget {
    visits: usize,
    copied: usize,
}

impl Budget {
    /// Visits a value that is to stand `below` levels under the root; returns its rough size.
    fn take(&mut self, value: &Value, below: usize) -> Result<usize, PatchError> {
        let mut size = 0;
        let mut open = vec![(value, below)];
        while let Some((value, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return Err(too_large("the result would be nested too deeply"));
            }
            self.visits = self
                .visits
                .checked_sub(1)
                .ok_or_else(|| too_large("the patch would take too long to apply"))?;
            match value {
                Value::String(text) => size += text.len() + 2,
                Value::Array(items) => {
                    size += 2 + items.len();
                    open.extend(items.iter().map(|item| (item, depth + 1)));
                }
                Value::Object(fields) => {
                    size += 2 + fields.keys().map(|key| key.len() + 4).sum::<usize>();
                    open.extend(fields.values().map(|field| (field, depth + 1)));
                }
                _ => size += 4,
            }
        }
        Ok(size)
    }

    fn copy(&mut self, size: usize) -> Result<(), PatchError> {
        self.copied += size;
        if self.copied > MAX_COPIED_BYTES {
            return Err(too_large(&format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, \
                 exceeding the limit {MAX_COPIED_BYTES}",
                self.copied
            )));
        }
        Ok(())
    }
}

fn too_large(why: &str) -> PatchError {
    PatchError::TooLarge(why.to_owned())
}

fn apply(document: &mut Value, operation: &Value, budget: &mut Budget) -> Result<(), PatchError> {
    let Value::Object(parts) = operation else {
        return Err(PatchError::Malformed("an operation of a JSON patch must be an object".into()));
    };
    let op = string(parts, "op")?;
    let path = pointer(string(parts, "path")?)?;
    let fails =
        |why: String| PatchError::DoesNotApply(format!("{op} operation does not apply: {why}"));
    match op {
        "add" | "replace" => {
            let value = value(parts)?.clone();
            budget.take(&value, path.len())?;
            let place = if op == "add" { add } else { replace };
            place(document, &path, value).map_err(fails)
        }
        "remove" => remove(document, &path).map(drop).map_err(fails),
        "test" => {
            let wanted = value(parts)?;
            budget.take(wanted, path.len())?;
            let found = find(document, &path);
            // An absent value equals null, as in the library that upstream uses.
            match found == Some(wanted) || (found.is_none() && wanted.is_null()) {
                true => Ok(()),
                false => Err(PatchError::DoesNotApply(format!(
                    "testing value {} failed: test failed",
                    string(parts, "path")?
                ))),
            }
        }
        "move" | "copy" => {
            let from = pointer(string(parts, "from")?)?;
            if op == "move" && path.len() > from.len() && path.starts_with(&from) {
                return Err(fails("a value cannot be moved into itself".to_owned()));
            }
            let source = find(document, &from)
                .ok_or_else(|| fails(format!("missing from path: {}", join(&from))))?;
            let size = budget.take(source, path.len())?;
            let moved = if op == "copy" {
                budget.copy(size)?;
                source.clone()
            } else {
                remove(document, &from).map_err(fails)?
            };
            add(document, &path, moved).map_err(fails)
        }
        other => Err(PatchError::Malformed(format!("unexpected kind of operation: {other}"))),
    }
}

fn string<'a>(parts: &'a Map<String, Value>, name: &str) -> Result<&'a str, PatchError> {
    let text = parts.get(name).and_then(Value::as_str);
    text.ok_or_else(|| {
        PatchError::Malformed(format!("an operation of a JSON patch needs {name:?}"))
    })
}

fn value(parts: &Map<String, Value>) -> Result<&Value, PatchError> {
    parts.get("value").ok_or_else(|| {
        PatchError::Malformed("this operation of a JSON patch needs \"value\"".into())
    })
}

/// Splits a JSON pointer and undoes its escapes.
fn pointer(text: &str) -> Result<Vec<String>, PatchError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(PatchError::Malformed(format!("a JSON pointer starts with '/': {text:?}")));
    };
    Ok(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect())
}

fn join(path: &[String]) -> String {
    path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

fn index(part: &str, len: usize) -> Option<usize> {
    let plain = part == "0" || (!part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()));
    let at: usize = plain.then(|| part.parse().ok()).flatten()?;
    (at < len).then_some(at)
}

fn find<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(document, |at, part| match at {
        Value::Object(fields) => fields.get(part),
        Value::Array(items) => items.get(index(part, items.len())?),
        _ => None,
    })
}

fn parent<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    let missing = || format!("doc is missing path: {}: missing value", join(path));
    path[..path.len() - 1].iter().try_fold(document, |at, part| match at {
        Value::Object(fields) => fields.get_mut(part).ok_or_else(missing),
        Value::Array(items) => {
            let at = index(part, items.len()).ok_or_else(missing)?;
            items.get_mut(at).ok_or_else(missing)
        }
        _ => Err(missing()),
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some(last) = path.last() else {
        *document = value;
        return Ok(());
    };
    match parent(document, path)? {
        Value::Object(fields) => {
            fields.insert(last.clone(), value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(last, items.len() + 1)
                .ok_or_else(|| format!("doc is missing path: {}: invalid index", join(path)))?;
            items.insert(at, value);
        }
        _ => return Err(format!("doc is missing path: {}: missing value", join(path))),
    }
    Ok(())
}

fn replace(document: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let Some(last) = path.last() else {
        *document = value;
        return Ok(());
    };
    let missing = format!("doc is missing key: {}: missing value", join(path));
    let place = match parent(document, path)? {
        Value::Object(fields) => fields.get_mut(last),
        Value::Array(items) => index(last, items.len()).and_then(|at| items.get_mut(at)),
        _ => None,
    };
    *place.ok_or(missing)? = value;
    Ok(())
}

fn remove(document: &mut Value, path: &[String]) -> Result<Value, String> {
    let Some(last) = path.last() else {
        return Ok(std::mem::take(document));
    };
    let missing = format!("doc is missing key: {}: missing value", join(path));
    match parent(document, path)? {
        Value::Object(fields) => fields.remove(last),
        Value::Array(items) => index(last, items.len()).map(|at| items.remove(at)),
        _ => None,
    }
    .ok_or(missing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 6902, appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        let cases = [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "remove", "path": "/baz"}]),
                json!({"foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"baz": "qux"}),
                json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
                json!({"baz": "boo"}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"foo": ["all", "grass", "cows", "eat"]}),
                json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
                json!({"foo": ["all", "cows", "eat", "grass"]}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}]),
                json!({"/": 9, "~1": 10}),
            ),
            (
                json!({"foo": ["bar"]}),
                json!([{"op": "add", "path": "/foo/-", "value": ["abc"]}]),
                json!({"foo": ["bar", ["abc"]]}),
            ),
        ];
        for (object, patch, wanted) in cases {
            assert_eq!(json_patch(&object, &patch), Ok(wanted), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let object = json!({"a": {"b": [1]}});
        for patch in [
            json!([{"op": "test", "path": "/a/b/0", "value": 2}]),
            json!([{"op": "remove", "path": "/a/x"}]),
            json!([{"op": "replace", "path": "/a/x", "value": 1}]),
            json!([{"op": "add", "path": "/x/y", "value": 1}]),
            json!([{"op": "add", "path": "/a/b/2", "value": 1}]),
            json!([{"op": "add", "path": "/a/b/01", "value": 1}]),
            json!([{"op": "move", "from": "/a", "path": "/a/b/0"}]),
        ] {
            assert!(
                matches!(json_patch(&object, &patch), Err(PatchError::DoesNotApply(_))),
                "{patch}"
            );
        }
        for patch in [
            json!({}),
            json!([{"op": "jump", "path": ""}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
        ] {
            assert!(
                matches!(json_patch(&object, &patch), Err(PatchError::Malformed(_))),
                "{patch}"
            );
        }
    }

    #[test]
    fn a_patch_cannot_explode() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![double; 60]);
        let fill = json!({"a": ["x".repeat(1000)]});
        assert!(matches!(json_patch(&fill, &patch), Err(PatchError::TooLarge(_))));

        let wrap = [
            json!({"op": "add", "path": "/w", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/w/a"}),
            json!({"op": "move", "from": "/w", "path": "/a"}),
        ];
        let patch = Value::Array(wrap.iter().cloned().cycle().take(9000).collect());
        assert!(matches!(json_patch(&fill, &patch), Err(PatchError::TooLarge(_))));

        let many = Value::Array(vec![json!({"op": "test", "path": "/z", "value": null}); 10_001]);
        assert!(matches!(json_patch(&fill, &many), Err(PatchError::TooLarge(_))));
    }
}
