//! Namespace: lives until its finalizer is taken off.

use serde_json::{Value, json};

use super::{Context, Strategy, child, keep};

/// Namespace.
pub fn namespace() -> Strategy {
    Strategy {
        name: machinery::names::dns1123_label,
        on_create,
        on_update: |object, old| {
            keep(object, old, "spec");
            label(object);
        },
        ..Strategy::default()
    }
}

fn on_create(object: &mut Value, _: &Context<'_>) {
    let finalizers = &mut child(object, "spec")["finalizers"];
    if !finalizers.as_array().is_some_and(|f| f.iter().any(|f| f == "kubernetes")) {
        let mut all = finalizers.as_array().cloned().unwrap_or_default();
        all.push("kubernetes".into());
        *finalizers = all.into();
    }
    object["status"] = json!({"phase": "Active"});
    label(object);
}

/// Every namespace can be selected by its name.
fn label(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    child(child(object, "metadata"), "labels")["kubernetes.io/metadata.name"] = name;
}
