//! ValidatingAdmissionPolicy and its binding: their expressions must compile, and what they name
//! must make sense.

use std::collections::BTreeMap;

use expressions::{Program, Type};
use machinery::Cause;
use serde_json::Value;

use super::webhooks::rule_faults;
use super::{Hook, Strategy, cause};
use crate::hooks::conditions::{self, expression_fault};
use crate::policies::{result_types, variables};

/// Most audit annotations of a policy.
const MAX_ANNOTATIONS: usize = 20;
/// Reasons that a validation may give.
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

/// ValidatingAdmissionPolicy.
pub fn policy() -> Strategy {
    Strategy { generation: true, check: check_policy, hook: Hook::Params, ..Strategy::default() }
}

/// ValidatingAdmissionPolicyBinding.
pub fn binding() -> Strategy {
    Strategy { generation: true, check: check_binding, hook: Hook::Params, ..Strategy::default() }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn required(at: &str, detail: &str) -> Cause {
    let colon = if detail.is_empty() { "" } else { ": " };
    cause("FieldValueRequired", at, format!("Required value{colon}{detail}"))
}

fn check_policy(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &new["spec"];
    // What was stored before stays valid.
    if old.is_some_and(|old| old["spec"] == *spec) {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if !spec["matchConstraints"].is_object() {
        causes.push(required("spec.matchConstraints", ""));
    } else if items(&spec["matchConstraints"]["resourceRules"]).is_empty() {
        causes.push(required("spec.matchConstraints.resourceRules", ""));
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        let at = format!("spec.matchConstraints.{key}");
        causes.extend(rule_faults(&spec["matchConstraints"][key], &at));
    }
    if spec["paramKind"].is_object() {
        for key in ["apiVersion", "kind"] {
            if text(&spec["paramKind"][key]).is_empty() {
                causes.push(required(&format!("spec.paramKind.{key}"), ""));
            }
        }
    }
    check_expressions(spec, &mut causes);
    causes
}

fn check_expressions(spec: &Value, causes: &mut Vec<Cause>) {
    let has_params = spec["paramKind"].is_object();
    let mut composed = BTreeMap::new();
    let plain: Vec<_> = variables(has_params, &composed)
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "variables"))
        .collect();
    causes.extend(conditions::faults(&spec["matchConditions"], "spec.matchConditions", &plain));
    for (index, variable) in items(&spec["variables"]).iter().enumerate() {
        let at = format!("spec.variables[{index}]");
        let (name, source) = (text(&variable["name"]), text(&variable["expression"]));
        if name.trim().is_empty() {
            causes.push(required(&format!("{at}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            let why = format!("Invalid value: {name:?}: must be a valid CEL identifier");
            causes.push(cause("FieldValueInvalid", &format!("{at}.name"), why));
        }
        let given = variables(has_params, &composed);
        let place = format!("{at}.expression");
        causes.extend(expression_fault(source, &place, &given, &[Type::Dyn]));
        let compiled = Program::compile(source, &given, &[Type::Dyn]);
        composed.insert(
            name.to_owned(),
            compiled.map_or(Type::Dyn, |program| program.result().clone()),
        );
    }
    let given = variables(has_params, &composed);
    let (validations, annotations) =
        (items(&spec["validations"]), items(&spec["auditAnnotations"]));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        causes.push(required("spec.validations", why));
        causes.push(required("spec.auditAnnotations", why));
    }
    for (index, validation) in validations.iter().enumerate() {
        check_validation(validation, &format!("spec.validations[{index}]"), &given, causes);
    }
    check_annotations(annotations, &given, causes);
}

fn check_validation(validation: &Value, at: &str, given: &[(&str, Type)], causes: &mut Vec<Cause>) {
    let mut invalid = |field: &str, value: &str, why: &str| {
        let text = format!("Invalid value: {value:?}: {why}");
        causes.push(cause("FieldValueInvalid", &format!("{at}.{field}"), text));
    };
    let message = text(&validation["message"]);
    if validation["message"].is_string() && message.trim().is_empty() && !message.is_empty() {
        invalid("message", message, "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        invalid("message", message, "must not contain line breaks");
    }
    let computed = text(&validation["messageExpression"]);
    if !computed.is_empty() && computed.trim().is_empty() {
        invalid("messageExpression", computed, "must be non-empty if specified");
    }
    let reason = text(&validation["reason"]);
    if !reason.is_empty() && !REASONS.contains(&reason) {
        let text = format!(
            "Unsupported value: {reason:?}: supported values: {}",
            REASONS.map(|r| format!("{r:?}")).join(", ")
        );
        causes.push(cause("FieldValueNotSupported", &format!("{at}.reason"), text));
    }
    for field in ["expression", "messageExpression"] {
        let source = text(&validation[field]);
        if field == "expression" || !source.trim().is_empty() {
            let source = if source.trim().is_empty() { "" } else { source };
            let place = format!("{at}.{field}");
            causes.extend(expression_fault(source, &place, given, result_types(field)));
        }
    }
}

fn check_annotations(annotations: &[Value], given: &[(&str, Type)], causes: &mut Vec<Cause>) {
    let at = "spec.auditAnnotations";
    if annotations.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        causes.push(cause("FieldValueInvalid", at, format!("Invalid value: {why}")));
    }
    let mut seen = Vec::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let key = text(&annotation["key"]);
        let place = format!("{at}[{index}].key");
        if key.is_empty() {
            causes.push(required(&place, ""));
        } else if seen.contains(&key) {
            causes.push(cause("FieldValueDuplicate", &place, format!("Duplicate value: {key:?}")));
        }
        seen.push(key);
        let place = format!("{at}[{index}].valueExpression");
        let source = text(&annotation["valueExpression"]);
        causes.extend(expression_fault(source, &place, given, result_types("valueExpression")));
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_binding(new: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &new["spec"];
    let mut causes = Vec::new();
    if text(&spec["policyName"]).is_empty() {
        causes.push(required("spec.policyName", ""));
    }
    let at = "spec.validationActions";
    let actions: Vec<&str> = items(&spec["validationActions"]).iter().map(text).collect();
    for (index, action) in actions.iter().enumerate() {
        let here = format!("{at}[{index}]");
        if !["Audit", "Deny", "Warn"].contains(action) {
            let text = format!(
                "Unsupported value: {action:?}: supported values: \"Audit\", \"Deny\", \"Warn\""
            );
            causes.push(cause("FieldValueNotSupported", &here, text));
        }
        if actions[..index].contains(action) {
            causes.push(cause(
                "FieldValueDuplicate",
                &here,
                format!("Duplicate value: {action:?}"),
            ));
        }
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let text = format!(
            "Invalid value: {}: must not contain both Deny and Warn (repeating the same validation \
             failure information in the API response and headers serves no purpose)",
            spec["validationActions"]
        );
        causes.push(cause("FieldValueInvalid", at, text));
    }
    if actions.is_empty() {
        causes.push(required(at, "at least one validation action is required"));
    }
    check_reference(&spec["paramRef"], &mut causes);
    causes
}

fn check_reference(reference: &Value, causes: &mut Vec<Cause>) {
    if !reference.is_object() {
        return;
    }
    let has_name = !text(&reference["name"]).is_empty();
    match (has_name, reference["selector"].is_object()) {
        (false, false) => {
            let why = "one of name or selector must be specified";
            causes.push(required("spec.paramRef", why));
        }
        (true, true) => {
            let text = "Forbidden: name and selector are mutually exclusive";
            causes.push(cause("FieldValueForbidden", "spec.paramRef.name", text));
        }
        _ => {}
    }
    match text(&reference["parameterNotFoundAction"]) {
        "" => causes.push(required("spec.paramRef.parameterNotFoundAction", "")),
        "Allow" | "Deny" => {}
        other => {
            let text =
                format!("Unsupported value: {other:?}: supported values: \"Deny\", \"Allow\"");
            causes.push(cause(
                "FieldValueNotSupported",
                "spec.paramRef.parameterNotFoundAction",
                text,
            ));
        }
    }
}
