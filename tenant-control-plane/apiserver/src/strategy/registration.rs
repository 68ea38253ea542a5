//! APIService: one per group and version that is served, here or by an extension API server.

use machinery::{Cause, names};
use serde_json::{Value, json};

use super::{Context, Strategy, cause};

/// Port of the Service when the APIService does not say.
pub const PORT: u16 = 443;

/// APIService.
pub fn api_service() -> Strategy {
    Strategy {
        name: machinery::names::path_segment,
        on_create,
        on_update: |new, _| complete(new),
        check,
        ..Strategy::default()
    }
}

/// One without a Service is served by this server itself, so it is always available.
fn on_create(object: &mut Value, context: &Context<'_>) {
    complete(object);
    if object["spec"].get("service").is_none_or(Value::is_null) {
        object["status"] = json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available",
            "lastTransitionTime": context.now,
        }]});
    }
}

fn complete(object: &mut Value) {
    if let Some(service) = object["spec"].get_mut("service").and_then(Value::as_object_mut) {
        service.entry("port").or_insert_with(|| PORT.into());
    }
}

fn check(new: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &new["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut causes = Vec::new();
    let mut bad = |field: &str, value: &Value, why: &str| {
        causes.push(cause("FieldValueInvalid", field, format!("Invalid value: {value}: {why}")));
    };
    let name = format!("{}.{}", text(&spec["version"]), text(&spec["group"]));
    if new["metadata"]["name"] != name.as_str() {
        let why = format!("must be `spec.version+\".\"+spec.group`: {name:?}");
        bad("metadata.name", &new["metadata"]["name"], &why);
    }
    let faults = [
        ("spec.version", names::dns1035_label(&text(&spec["version"])), &spec["version"]),
        ("spec.group", names::dns1123_subdomain(&text(&spec["group"])), &spec["group"]),
    ];
    for (field, outcome, value) in faults {
        let is_core = field == "spec.group" && text(value).is_empty() && spec["version"] == "v1";
        for fault in outcome.err().unwrap_or_default().into_iter().filter(|_| !is_core) {
            bad(field, value, &fault);
        }
    }
    if text(&spec["group"]).is_empty() && spec["service"].is_object() {
        bad("spec.service", &spec["service"]["name"], "the core group is served by this server");
    }
    for (key, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        if !(1..=most).contains(&spec[key].as_i64().unwrap_or_default()) {
            let why = format!("must be positive and less than {most}");
            bad(&format!("spec.{key}"), &json!(spec[key].as_i64().unwrap_or_default()), &why);
        }
    }
    let bundle = text(&spec["caBundle"]);
    let insecure = &spec["insecureSkipTLSVerify"];
    if !spec["service"].is_object() {
        if !bundle.is_empty() {
            let shown = json!(format!("{} characters", bundle.len()));
            bad("spec.caBundle", &shown, "local APIServices may not have a caBundle");
        }
        if *insecure == true {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            bad("spec.insecureSkipTLSVerify", insecure, why);
        }
        return causes;
    }
    if *insecure == true && !bundle.is_empty() {
        bad("spec.insecureSkipTLSVerify", insecure, "may not be true if caBundle is present");
    }
    let port = &spec["service"]["port"];
    if !(1..=65_535).contains(&port.as_i64().unwrap_or_default()) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        bad("spec.service.port", port, why);
    }
    for key in ["namespace", "name"] {
        if text(&spec["service"][key]).is_empty() {
            let field = format!("spec.service.{key}");
            causes.push(cause("FieldValueRequired", &field, "Required value"));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_service_may_say() {
        let faults = |patch: Value| -> Vec<String> {
            let mut object = json!({"metadata": {"name": "v1.g"}, "spec": {
                "group": "g", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1000,
                "service": {"namespace": "n", "name": "s"},
            }});
            for (key, value) in patch.as_object().unwrap() {
                object["spec"][key] = value.clone();
            }
            complete(&mut object);
            check(&object, None).into_iter().map(|c| c.field).collect()
        };
        assert_eq!(faults(json!({})), [""; 0]);
        assert_eq!(faults(json!({"version": "v2"})), ["metadata.name"]);
        assert_eq!(faults(json!({"version": "1.0"})), ["metadata.name", "spec.version"]);
        assert_eq!(faults(json!({"group": "G_"})), ["metadata.name", "spec.group"]);
        assert_eq!(faults(json!({"group": ""})), ["metadata.name", "spec.service"]);
        assert_eq!(faults(json!({"groupPriorityMinimum": 20_001})), ["spec.groupPriorityMinimum"]);
        assert_eq!(faults(json!({"versionPriority": 0})), ["spec.versionPriority"]);
        let local = json!({"service": null, "caBundle": "YQ==", "insecureSkipTLSVerify": true});
        assert_eq!(faults(local), ["spec.caBundle", "spec.insecureSkipTLSVerify"]);
        let both = json!({"caBundle": "YQ==", "insecureSkipTLSVerify": true});
        assert_eq!(faults(both), ["spec.insecureSkipTLSVerify"]);
        let service = json!({"service": {"namespace": "n", "port": 0}});
        assert_eq!(faults(service), ["spec.service.port", "spec.service.name"]);
    }
}
