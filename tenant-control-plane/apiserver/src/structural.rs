//! Structural schemas of custom resources: pruning and defaulting.
//!
//! Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions":
//! "Field pruning" and "Defaulting".

use serde_json::{Map, Value};

/// Prunes and defaults an object by its schema. `apiVersion`, `kind` and `metadata` are left
/// alone at the top and in embedded resources.
pub fn settle(schema: &Value, object: &mut Value) {
    prune_fields(schema, object, true);
    default_fields(schema, object);
}

/// Drops what the schema does not have, for instance after a change of version.
pub fn prune(schema: &Value, object: &mut Value) {
    prune_fields(schema, object, true);
}

/// Fills in defaults alone, as for objects that were stored before the schema had them.
pub fn default(schema: &Value, object: &mut Value) {
    default_fields(schema, object);
}

/// True when [`default`] could change anything.
pub fn has_defaults(schema: &Value) -> bool {
    let inner = |key: &str| schema.get(key).is_some_and(|s| s.is_object() && has_defaults(s));
    let property = |s: &Value| s.get("default").is_some() || has_defaults(s);
    schema["properties"].as_object().is_some_and(|all| all.values().any(property))
        || inner("items")
        || inner("additionalProperties")
}

fn flag(schema: &Value, name: &str) -> bool {
    schema[name] == Value::Bool(true)
}

fn is_object_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

fn prune_fields(schema: &Value, value: &mut Value, is_resource: bool) {
    match value {
        Value::Object(map) => prune_map(schema, map, is_resource),
        Value::Array(items) => {
            for item in items {
                prune_value(&schema["items"], item);
            }
        }
        _ => {}
    }
}

fn prune_value(schema: &Value, value: &mut Value) {
    prune_fields(schema, value, flag(schema, "x-kubernetes-embedded-resource"));
}

fn prune_map(schema: &Value, map: &mut Map<String, Value>, is_resource: bool) {
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let additional = &schema["additionalProperties"];
    map.retain(|key, value| {
        if is_resource && is_object_meta(key) {
            return true;
        }
        if let Some(property) = schema["properties"].get(key) {
            prune_value(property, value);
            return true;
        }
        match additional {
            Value::Object(_) => {
                prune_value(additional, value);
                true
            }
            Value::Bool(allowed) => *allowed || preserve,
            _ => preserve,
        }
    });
}

fn default_fields(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let default = property.get("default");
                match map.get(name) {
                    None => {
                        if let Some(default) = default {
                            map.insert(name.clone(), default.clone());
                        }
                    }
                    // A null where none is allowed is the same as nothing.
                    Some(Value::Null) if !flag(property, "nullable") => match default {
                        Some(default) => {
                            map.insert(name.clone(), default.clone());
                        }
                        None => {
                            map.remove(name);
                        }
                    },
                    Some(_) => {}
                }
                if let Some(inner) = map.get_mut(name) {
                    default_fields(property, inner);
                }
            }
            if schema["additionalProperties"].is_object() {
                map.values_mut().for_each(|v| default_fields(&schema["additionalProperties"], v));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| default_fields(&schema["items"], item));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::settle;
    use serde_json::json;

    #[test]
    fn defaults_are_found_wherever_they_are() {
        let field = json!({"type": "string", "default": "x"});
        let deep = json!({"properties": {"a": {"items": {"properties": {"b": field}}}}});
        assert!(super::has_defaults(&deep));
        assert!(!super::has_defaults(&json!({"properties": {"default": {"type": "string"}}})));
        let mut object = json!({"a": [{}, {"b": "y"}], "unknown": 1});
        super::default(&deep, &mut object);
        assert_eq!(object, json!({"a": [{"b": "x"}, {"b": "y"}], "unknown": 1}));
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }});
        let mut object = json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"},
            "spec": {"free": {"a": 1}, "map": {"k": "v"}, "other": 1}, "more": 2,
        });
        settle(&schema, &mut object);
        assert_eq!(
            object,
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"},
                "spec": {"free": {"a": 1}, "map": {"k": "v"}, "size": 3},
            })
        );
    }
}
