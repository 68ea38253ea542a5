//! Node: the kubelet creates it together with its status.

use machinery::Cause;
use serde_json::Value;

use super::{Strategy, cause};

/// Node.
pub fn node() -> Strategy {
    Strategy { keeps_status_on_create: true, check, ..Strategy::default() }
}

fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(old) = old else { return causes };
    for (field, key) in [("spec.podCIDR", "podCIDR"), ("spec.podCIDRs", "podCIDRs")] {
        let (was, is) = (&old["spec"][key], &new["spec"][key]);
        if !was.is_null() && was != is {
            causes.push(cause(
                "FieldValueForbidden",
                field,
                "Forbidden: node updates may not change podCIDR except from \"\" to valid",
            ));
        }
    }
    let (was, is) = (&old["spec"]["providerID"], &new["spec"]["providerID"]);
    if !was.is_null() && was != is {
        causes.push(cause(
            "FieldValueForbidden",
            "spec.providerID",
            "Forbidden: node updates may not change providerID except from \"\" to valid",
        ));
    }
    causes
}
