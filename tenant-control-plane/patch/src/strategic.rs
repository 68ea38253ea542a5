//! Kubernetes' strategic merge patch, for the kinds of the table.
//!
//! Source: the design document "Strategic Merge Patch" of SIG API Machinery. Objects merge, `null`
//! removes. A list whose field has the patch strategy `merge` merges too: objects by their merge
//! key, scalars as a set. Keys and elements that start with `$` are directives:
//!
//! | directive | where | effect |
//! |-|-|-|
//! | `$patch: replace` | object, or element of a merging list | the patch is the new value |
//! | `$patch: delete` | object, or element with merge key | emptied, or removed from the list |
//! | `$patch: merge` | object | the default, said aloud |
//! | `$retainKeys: [..]` | object | all other keys are removed |
//! | `$deleteFromPrimitiveList/<f>` | beside `<f>` | these scalars leave the list `<f>` |
//! | `$setElementOrder/<f>` | beside `<f>` | the order of the elements of `<f>` |

use std::collections::{HashMap, HashSet};

use schema::{Field, FieldType, Schema, Type};
use serde_json::{Map, Value};

use crate::PatchError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a type of the schema.
pub fn strategic_merge(
    schema: &Schema,
    ty: &Type,
    object: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(changes)) = (object, patch) else {
        return Err(malformed("a strategic merge patch must be a JSON object"));
    };
    let merge = Merge { schema };
    Ok(Value::Object(merge.object(Some(ty), current, changes)?))
}

fn malformed(why: impl Into<String>) -> PatchError {
    PatchError::Malformed(why.into())
}

struct Merge<'s> {
    schema: &'s Schema,
}

impl<'s> Merge<'s> {
    /// Merges two objects. Without a type (free-form maps) every field merges as in RFC 7396.
    fn object(
        &self,
        ty: Option<&Type>,
        current: &Object,
        patch: &Object,
    ) -> Result<Object, PatchError> {
        match patch.get(PATCH).map(Value::as_str) {
            None | Some(Some("merge")) => {}
            Some(Some("replace")) => return self.object(ty, &Object::new(), &without_patch(patch)),
            Some(Some("delete")) => return Ok(Object::new()),
            Some(other) => {
                return Err(malformed(format!(
                    "unknown patch type found: {}",
                    other.unwrap_or("not a string")
                )));
            }
        }
        let mut result = current.clone();
        self.retain_keys(patch, &mut result)?;
        for (name, change) in patch {
            if name.starts_with(PATCH) || name == RETAIN_KEYS {
                continue;
            }
            if let Some(list) = name.strip_prefix(DELETE_FROM) {
                delete_scalars(&mut result, list, change)?;
            }
        }
        for (name, change) in patch.iter().filter(|(name, _)| !is_directive(name)) {
            if change.is_null() {
                result.remove(name);
                continue;
            }
            let field = ty.and_then(|t| t.field(name));
            let merged = self.field_value(field, result.get(name), change)?;
            result.insert(name.clone(), merged);
        }
        for (directive, order) in patch {
            if let Some(name) = directive.strip_prefix(SET_ORDER) {
                let field = ty.and_then(|t| t.field(name));
                self.set_order(field, name, order, current, &mut result)?;
            }
        }
        Ok(result)
    }

    fn field_value(
        &self,
        field: Option<&Field>,
        current: Option<&Value>,
        change: &Value,
    ) -> Result<Value, PatchError> {
        match change {
            Value::Object(changes) => {
                let empty = Object::new();
                let current = current.and_then(Value::as_object).unwrap_or(&empty);
                let ty = field.and_then(|f| match &f.ty {
                    FieldType::Object(id) => Some(self.schema.resolve(*id)),
                    _ => None,
                });
                // A map of objects: the changes below its keys merge by the elements' type.
                if let Some(FieldType::Map(inner)) = field.map(|f| &f.ty)
                    && let FieldType::Object(id) = **inner
                {
                    return self.map_of_objects(self.schema.resolve(id), current, changes);
                }
                self.object(ty, current, changes).map(Value::Object)
            }
            Value::Array(changes) => {
                let empty = Vec::new();
                let current = current.and_then(Value::as_array).unwrap_or(&empty);
                match field.filter(|f| f.patch.merge) {
                    Some(field) => self.list(field, current, changes).map(Value::Array),
                    None => Ok(change.clone()),
                }
            }
            scalar => Ok(scalar.clone()),
        }
    }

    fn map_of_objects(
        &self,
        ty: &Type,
        current: &Object,
        changes: &Object,
    ) -> Result<Value, PatchError> {
        let mut result = current.clone();
        for (key, change) in changes.iter().filter(|(key, _)| !is_directive(key)) {
            match change {
                Value::Null => {
                    result.remove(key);
                }
                Value::Object(inner) => {
                    let empty = Object::new();
                    let before = current.get(key).and_then(Value::as_object).unwrap_or(&empty);
                    result
                        .insert(key.clone(), Value::Object(self.object(Some(ty), before, inner)?));
                }
                other => {
                    result.insert(key.clone(), other.clone());
                }
            }
        }
        Ok(Value::Object(result))
    }

    /// `$retainKeys`: what the patch does not list goes, and the patch may set only what it lists.
    fn retain_keys(&self, patch: &Object, result: &mut Object) -> Result<(), PatchError> {
        let Some(keep) = patch.get(RETAIN_KEYS) else { return Ok(()) };
        let keep =
            keep.as_array().ok_or_else(|| malformed("$retainKeys must be a list of strings"))?;
        let kept = |name: &str| keep.iter().any(|k| k.as_str() == Some(name));
        for (name, change) in patch.iter().filter(|(name, _)| !is_directive(name)) {
            if !change.is_null() && !kept(name) {
                return Err(malformed(format!(
                    "$retainKeys list does not contain the field {name:?} that the patch sets"
                )));
            }
        }
        result.retain(|name, _| kept(name));
        Ok(())
    }

    /// Merges a list whose field has the strategy `merge`.
    fn list(
        &self,
        field: &Field,
        current: &[Value],
        patch: &[Value],
    ) -> Result<Vec<Value>, PatchError> {
        let Some(key) = field.patch.merge_key.as_deref() else {
            return Ok(merge_scalars(current, patch));
        };
        let ty = field.ty.object().map(|id| self.schema.resolve(id));
        let mut changes = Vec::new();
        let mut deleted = HashSet::new();
        let mut replaces = false;
        for element in patch {
            let Value::Object(element) = element else {
                return Err(malformed(format!(
                    "{}: a list of objects cannot merge with {element}",
                    field.name
                )));
            };
            match element.get(PATCH).map(Value::as_str) {
                None | Some(Some("merge")) => changes.push(without_patch(element)),
                Some(Some("replace")) => {
                    replaces = true;
                    let rest = without_patch(element);
                    if !rest.is_empty() {
                        changes.push(rest);
                    }
                }
                Some(Some("delete")) => {
                    deleted.insert(element.get(key).ok_or_else(|| no_key(element, key))?);
                }
                Some(other) => {
                    return Err(malformed(format!(
                        "unknown patch type found: {}",
                        other.unwrap_or("not a string")
                    )));
                }
            }
        }
        let stays = |item: &&Value| !replaces && item.get(key).is_none_or(|k| !deleted.contains(k));
        let mut result: Vec<Value> = current.iter().filter(stays).cloned().collect();
        let mut places: HashMap<Value, usize> = HashMap::new();
        for (at, item) in result.iter().enumerate() {
            if let Some(found) = item.get(key) {
                places.entry(found.clone()).or_insert(at);
            }
        }
        for change in &changes {
            let wanted = change.get(key).ok_or_else(|| no_key(change, key))?;
            let place = places.get(wanted).copied();
            let empty = Object::new();
            let before = place.and_then(|at| result[at].as_object()).unwrap_or(&empty);
            let merged = Value::Object(self.object(ty, before, change)?);
            match place {
                Some(at) => result[at] = merged,
                None => {
                    places.insert(wanted.clone(), result.len());
                    result.push(merged);
                }
            }
        }
        let order: Vec<&Value> = changes.iter().filter_map(|c| c.get(key)).collect();
        let server: Vec<&Value> = current.iter().filter_map(|c| c.get(key)).collect();
        Ok(ordered(result, &order, &server, |item| item.get(key).unwrap_or(item)))
    }

    /// `$setElementOrder/<name>`: the elements that it names come in its order; the others keep
    /// their places between them.
    fn set_order(
        &self,
        field: Option<&Field>,
        name: &str,
        order: &Value,
        current: &Object,
        result: &mut Object,
    ) -> Result<(), PatchError> {
        let Value::Array(order) = order else {
            return Err(malformed(format!("{SET_ORDER}{name} must be a list")));
        };
        let Some(Value::Array(items)) = result.get_mut(name) else { return Ok(()) };
        let key = field.and_then(|f| f.patch.merge_key.as_deref());
        fn identity<'v>(key: Option<&str>, item: &'v Value) -> &'v Value {
            key.and_then(|k| item.get(k)).unwrap_or(item)
        }
        let wanted: Vec<&Value> = order.iter().map(|item| identity(key, item)).collect();
        let before =
            current.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let server: Vec<&Value> = before.iter().map(|item| identity(key, item)).collect();
        let taken = std::mem::take(items);
        *items = ordered(taken, &wanted, &server, |item| identity(key, item));
        Ok(())
    }
}

fn no_key(element: &Object, key: &str) -> PatchError {
    malformed(format!(
        "map: {} does not contain declared merge key: {key}",
        Value::Object(element.clone())
    ))
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(DELETE_FROM)
        || name.starts_with(SET_ORDER)
}

fn without_patch(object: &Object) -> Object {
    object.iter().filter(|(name, _)| *name != PATCH).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn delete_scalars(result: &mut Object, list: &str, gone: &Value) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return Err(malformed(format!("{DELETE_FROM}{list} must be a list")));
    };
    let gone: HashSet<&Value> = gone.iter().collect();
    if let Some(Value::Array(items)) = result.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_scalars(current: &[Value], patch: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let result = current.iter().chain(patch).filter(|item| seen.insert(*item)).cloned().collect();
    let (order, server): (Vec<&Value>, Vec<&Value>) =
        (patch.iter().collect(), current.iter().collect());
    ordered(result, &order, &server, |item| item)
}

/// Sorts a merged list: elements of `order` in its order, all others in the server's order. Where
/// the two meet, an element that stood before the other on the server still does; an element that
/// is new goes first.
fn ordered(
    items: Vec<Value>,
    order: &[&Value],
    server: &[&Value],
    identity: impl for<'v> Fn(&'v Value) -> &'v Value,
) -> Vec<Value> {
    let places = |list: &[&'_ Value]| -> HashMap<Value, usize> {
        let mut found = HashMap::new();
        for (at, item) in list.iter().enumerate() {
            found.entry((*item).clone()).or_insert(at);
        }
        found
    };
    let (order, server) = (places(order), places(server));
    let place = |list: &HashMap<Value, usize>, item: &Value| list.get(identity(item)).copied();
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(&order, item).is_some());
    named.sort_by_key(|item| place(&order, item));
    others.sort_by_key(|item| place(&server, item).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        match (others.peek(), named.peek()) {
            (Some(other), Some(name)) => {
                let first = match (place(&server, other), place(&server, name)) {
                    (Some(other), Some(name)) => other < name,
                    _ => false,
                };
                result.extend(if first { others.next() } else { named.next() });
            }
            (Some(_), None) => result.extend(others.next()),
            (None, Some(_)) => result.extend(named.next()),
            (None, None) => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(group: &str, kind: &str, object: Value, patch: Value) -> Result<Value, PatchError> {
        let schema = Schema::get("1.35").expect("table");
        let ty = schema.type_of(group, "v1", kind).expect("kind");
        strategic_merge(schema, ty, &object, &patch)
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn containers_merge_by_name_and_their_other_fields_stay() {
        let current =
            pod(json!([{"name": "a", "image": "a:1", "command": ["x", "y"]}, {"name": "b"}]));
        let patched = apply(
            "",
            "Pod",
            current.clone(),
            pod(json!([{"name": "a", "image": "a:2", "command": ["z"]}])),
        );
        assert_eq!(
            patched,
            Ok(pod(json!([{"name": "a", "image": "a:2", "command": ["z"]}, {"name": "b"}])))
        );
        let deleted =
            apply("", "Pod", current.clone(), pod(json!([{"name": "a", "$patch": "delete"}])));
        assert_eq!(deleted, Ok(pod(json!([{"name": "b"}]))));
        let replaced =
            apply("", "Pod", current.clone(), pod(json!([{"name": "c"}, {"$patch": "replace"}])));
        assert_eq!(replaced, Ok(pod(json!([{"name": "c"}]))));
        let nameless = apply("", "Pod", current, pod(json!([{"image": "x"}])));
        assert!(nameless.expect_err("no key").to_string().contains("merge key: name"));
    }

    #[test]
    fn the_given_element_order_wins() {
        let current = pod(json!([{"name": "a"}, {"name": "server"}, {"name": "b"}]));
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new", "image": "n"}]}});
        let names = |v: &Value| -> Vec<String> {
            let list = v["spec"]["containers"].as_array().expect("list");
            list.iter().map(|c| c["name"].as_str().expect("name").to_owned()).collect()
        };
        let result = apply("", "Pod", current, patch).expect("applies");
        assert_eq!(names(&result), ["server", "b", "new", "a"]);
    }

    #[test]
    fn scalars_merge_as_a_set_and_leave_by_directive() {
        let current = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["d", "a"],
            "finalizers": ["d"]}});
        let result = apply("", "Pod", current, patch).expect("applies");
        assert_eq!(result["metadata"]["finalizers"], json!(["d", "a", "c"]));
    }

    #[test]
    fn retained_keys_push_the_others_out() {
        let current = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let result = apply("apps", "Deployment", current.clone(), patch).expect("applies");
        assert_eq!(result["spec"]["strategy"], json!({"type": "Recreate"}));
        let volumes =
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}});
        let patch = json!({"spec": {"template": {"spec": {"volumes": [
            {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}}});
        let result = apply("apps", "Deployment", volumes, patch).expect("applies");
        assert_eq!(
            result["spec"]["template"]["spec"]["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/x"}}])
        );
        let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
        assert!(apply("apps", "Deployment", current, wrong).is_err());
    }

    #[test]
    fn objects_and_free_maps_merge_and_null_removes() {
        let current = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"x": "1"}});
        let patch = json!({"metadata": {"labels": {"a": null, "c": "3"}}, "data": {"$patch": "replace", "y": "2"}});
        let result = apply("", "ConfigMap", current.clone(), patch).expect("applies");
        assert_eq!(
            result,
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "data": {"y": "2"}})
        );
        let emptied = apply("", "ConfigMap", current, json!({"data": {"$patch": "delete"}}))
            .expect("applies");
        assert_eq!(emptied["data"], json!({}));
    }

    #[test]
    fn a_new_value_carries_no_directives_and_no_nulls() {
        let patch = pod(
            json!([{"name": "a", "image": null, "$setElementOrder/env": [{"name": "E"}], "env": [{"name": "E", "value": "1"}]}]),
        );
        let result = apply("", "Pod", json!({}), patch).expect("applies");
        assert_eq!(result, pod(json!([{"name": "a", "env": [{"name": "E", "value": "1"}]}])));
    }

    #[test]
    fn lists_without_a_merge_strategy_are_replaced() {
        let current = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}});
        let patch = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}});
        assert_eq!(apply("apps", "Deployment", current, patch.clone()), Ok(patch));
    }
}
