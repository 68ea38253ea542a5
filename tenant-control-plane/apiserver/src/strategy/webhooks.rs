//! Webhook configurations: their match conditions must compile.

use machinery::Cause;
use serde_json::Value;

use super::Strategy;
use crate::hooks::conditions::{self, WEBHOOK};

/// MutatingWebhookConfiguration and ValidatingWebhookConfiguration.
pub fn configuration() -> Strategy {
    Strategy { generation: true, check, ..Strategy::default() }
}

fn check(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let webhooks = |v: &Value| v["webhooks"].as_array().cloned().unwrap_or_default();
    let known = old.map(webhooks).unwrap_or_default();
    let mut causes = Vec::new();
    for (index, webhook) in webhooks(new).iter().enumerate() {
        let at = format!("webhooks[{index}].matchConditions");
        let list = &webhook["matchConditions"];
        // What was stored before stays valid.
        let is_new = known.get(index).is_none_or(|old| old["matchConditions"] != *list);
        if is_new {
            causes.extend(conditions::faults(list, &at, &WEBHOOK));
        }
    }
    causes
}
