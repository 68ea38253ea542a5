//! APIService: one per group and version that is served.

use serde_json::{Value, json};

use super::{Context, Strategy};

/// APIService.
pub fn api_service() -> Strategy {
    Strategy { name: machinery::names::path_segment, on_create, ..Strategy::default() }
}

/// One without a Service is served by this server itself, so it is always available.
fn on_create(object: &mut Value, context: &Context<'_>) {
    if object["spec"].get("service").is_none_or(Value::is_null) {
        object["status"] = json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available",
            "lastTransitionTime": context.now,
        }]});
    }
}
