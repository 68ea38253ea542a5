//! CustomResourceDefinition: its status says which names and versions are served.

use serde_json::{Value, json};

use super::{Context, Strategy, child, default_to};

/// Kept while objects of the definition exist.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// CustomResourceDefinition.
pub fn definition() -> Strategy {
    Strategy { generation: true, on_create, on_update, check, ..Strategy::default() }
}

fn fill(object: &mut Value) {
    let spec = child(object, "spec");
    default_to(spec, "conversion", json!({"strategy": "None"}));
    let names = child(spec, "names");
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    default_to(names, "singular", kind.to_lowercase().into());
    default_to(names, "listKind", format!("{kind}List").into());
}

fn stored_version(object: &Value) -> Option<Value> {
    let mut versions = object["spec"]["versions"].as_array()?.iter();
    versions.find(|v| v["storage"] == json!(true)).map(|v| v["name"].clone())
}

fn on_create(object: &mut Value, context: &Context<'_>) {
    fill(object);
    let finalizers = &mut child(object, "metadata")["finalizers"];
    let mut all = finalizers.as_array().cloned().unwrap_or_default();
    if !all.iter().any(|f| f == FINALIZER) {
        all.push(FINALIZER.into());
    }
    *finalizers = all.into();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": context.now,
        })
    };
    object["status"] = json!({
        "acceptedNames": object["spec"]["names"],
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored_version(object).into_iter().collect::<Vec<_>>(),
    });
}

fn on_update(object: &mut Value, _: &Value) {
    fill(object);
    object["status"]["acceptedNames"] = object["spec"]["names"].clone();
    let Some(stored) = stored_version(object) else { return };
    if let Some(list) = object["status"]["storedVersions"].as_array_mut()
        && !list.contains(&stored)
    {
        list.push(stored);
    }
}

fn check(new: &Value, old: Option<&Value>) -> Vec<machinery::Cause> {
    let mut causes = Vec::new();
    let spec = &new["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if new["metadata"]["name"] != json!(expected) {
        causes.push(super::cause(
            "FieldValueInvalid",
            "metadata.name",
            format!(
                "Invalid value: {}: must be spec.names.plural+\".\"+spec.group",
                new["metadata"]["name"]
            ),
        ));
    }
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    if versions.iter().filter(|v| v["storage"] == json!(true)).count() != 1 {
        causes.push(super::cause(
            "FieldValueInvalid",
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            causes.push(super::cause(
                "FieldValueRequired",
                &format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "Required value: schemas are required",
            ));
        }
    }
    check_stored(&new["status"]["storedVersions"], versions, &mut causes);
    check_conversion(&spec["conversion"], &mut causes);
    if let Some(old) = old {
        let old = &old["spec"];
        causes.extend(super::immutable("spec.group", &spec["group"], &old["group"]));
        causes.extend(super::immutable("spec.scope", &spec["scope"], &old["scope"]));
    }
    causes
}

/// A version that objects may still be stored in has to stay.
fn check_stored(stored: &Value, versions: &[Value], causes: &mut Vec<machinery::Cause>) {
    for (i, name) in stored.as_array().into_iter().flatten().enumerate() {
        if versions.iter().any(|version| version["name"] == *name) {
            continue;
        }
        let shown = name.as_str().unwrap_or_default();
        let text = format!(
            "Invalid value: {shown:?}: missing from spec.versions; {shown} was previously a \
             storage version, and must remain in spec.versions until a storage migration ensures \
             no data remains persisted in {shown} and removes {shown} from status.storedVersions"
        );
        causes.push(super::cause(
            "FieldValueInvalid",
            &format!("status.storedVersions[{i}]"),
            text,
        ));
    }
}

/// A conversion by webhook needs to know the webhook.
fn check_conversion(conversion: &Value, causes: &mut Vec<machinery::Cause>) {
    let at = "spec.conversion";
    let mut add = |reason: &str, field: &str, text: String| {
        causes.push(super::cause(reason, &format!("{at}{field}"), text));
    };
    match conversion["strategy"].as_str().unwrap_or("None") {
        "None" => return,
        "Webhook" => {}
        other => {
            let text =
                format!("Unsupported value: {other:?}: supported values: \"None\", \"Webhook\"");
            return add("FieldValueNotSupported", ".strategy", text);
        }
    }
    let webhook = &conversion["webhook"];
    let client = &webhook["clientConfig"];
    let required = |detail: &str| format!("Required value: {detail}");
    if !client.is_object() {
        let text = required("required when strategy is set to Webhook");
        add("FieldValueRequired", ".webhook.clientConfig", text);
    } else if client["url"].is_string() == client["service"].is_object() {
        let text = required("exactly one of url or service is required");
        add("FieldValueRequired", ".webhook.clientConfig", text);
    }
    let versions = webhook["conversionReviewVersions"].as_array().map_or(&[][..], Vec::as_slice);
    if !versions.iter().any(|version| *version == "v1" || *version == "v1beta1") {
        let text = required("must include at least one of v1, v1beta1");
        add("FieldValueRequired", ".webhook.conversionReviewVersions", text);
    }
}
