//! Reading and changing objects as JSON.

pub(crate) use machinery::json::{items, text};
use serde_json::{Map, Value};

/// The list at a key, made when it is absent or null.
pub(crate) fn list_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let field = map_mut(object).entry(key).or_insert(Value::Null);
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    field.as_array_mut().expect("made an array above")
}

/// The object as a map, made when it is anything else.
pub(crate) fn map_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object.as_object_mut().expect("made an object above")
}

/// The map at a key, made when it is absent or null.
pub(crate) fn child_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    map_mut(map_mut(object).entry(key).or_insert(Value::Null))
}

/// A label or annotation, or `None`.
pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

/// True when the pod stands for a static pod of a node.
pub(crate) fn is_mirror_pod(pod: &Value) -> bool {
    annotation(pod, "kubernetes.io/config.mirror").is_some()
}

/// A suffix as generated names have: five characters that spell no words.
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}
