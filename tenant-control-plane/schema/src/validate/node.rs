//! Nodes.

use machinery::names;
use serde_json::Value;

use super::faults::{items, text};
use super::{At, Faults};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn node(node: &Value, faults: &mut Faults) {
    let at = At::new("spec.taints");
    let taints = items(&node["spec"], "taints");
    for (index, taint) in taints.iter().enumerate() {
        let here = at.index(index);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        faults.text(&here.field("key"), key, names::qualified_name);
        faults.text(&here.field("value"), text(taint, "value"), names::label_value);
        if effect.is_empty() {
            faults.required(&here.field("effect"), "");
        } else if !EFFECTS.contains(&effect) {
            faults.unsupported(&here.field("effect"), effect, EFFECTS);
        }
        let is_same = |other: &Value| text(other, "key") == key && text(other, "effect") == effect;
        if taints[..index].iter().any(is_same) {
            let why = "taints must be unique by key and effect";
            faults.duplicate_because(&here, taint.clone(), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_are_well_formed_and_unique_by_key_and_effect() {
        let mut faults = Faults::default();
        let taints = json!([
            {"key": "a", "value": "1", "effect": "NoSchedule"},
            {"key": "a", "effect": "NoExecute"},
            {"key": "a", "value": "2", "effect": "NoSchedule"},
            {"key": "b", "effect": "Sometimes"},
            {"key": "not a key", "effect": "NoSchedule"},
        ]);
        node(&json!({"spec": {"taints": taints}}), &mut faults);
        let causes = faults.into_causes();
        let fields: Vec<_> = causes.iter().map(|c| c.field.as_str()).collect();
        assert_eq!(fields, ["spec.taints[2]", "spec.taints[3].effect", "spec.taints[4].key"]);
        assert!(causes[0].message.ends_with(": taints must be unique by key and effect"));
    }
}
