//! Policies and bindings, compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use admission::rule::Rule;
use expressions::types::Object;
use expressions::{Program, Type};
use machinery::LabelSelector;
use serde_json::Value;

use crate::hooks::conditions::Conditions;

/// A policy with all of its bindings.
pub(super) struct Policy {
    pub(super) name: String,
    /// `failurePolicy: Ignore`.
    pub(super) fails_open: bool,
    pub(super) criteria: Criteria,
    /// `paramKind`: API version and kind.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) conditions: Conditions,
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) validations: Vec<Validation>,
    pub(super) bindings: Vec<Binding>,
}

/// A program, or why there is none.
pub(super) type Compiled = Result<Program, String>;

/// One of a policy's `validations`.
pub(super) struct Validation {
    pub(super) source: String,
    pub(super) program: Compiled,
    pub(super) message: String,
    pub(super) message_program: Option<Compiled>,
    pub(super) reason: String,
}

/// Says where a policy applies, and what follows from it.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) criteria: Option<Criteria>,
    /// `paramRef`, or null.
    pub(super) params: Value,
    pub(super) denies: bool,
    pub(super) warns: bool,
}

/// `matchConstraints` or `matchResources`.
pub(super) struct Criteria {
    pub(super) rules: Vec<Rule>,
    pub(super) excluded: Vec<Rule>,
    pub(super) equivalent: bool,
    pub(super) namespaces: Result<LabelSelector, String>,
    pub(super) objects: Result<LabelSelector, String>,
}

/// The variables of a policy's expressions; `composed` are its own `variables` so far.
pub fn variables(has_params: bool, composed: &BTreeMap<String, Type>) -> Vec<(&'static str, Type)> {
    let mut all: Vec<_> = ["object", "oldObject", "request", "namespaceObject"]
        .into_iter()
        .map(|name| (name, Type::Dyn))
        .collect();
    all.push(("authorizer", Type::AUTHORIZER));
    if has_params {
        all.push(("params", Type::Dyn));
    }
    let fields = composed.clone();
    let name = "kubernetes.variables".to_owned();
    all.push(("variables", Type::Object(Arc::new(Object { name, fields }))));
    all
}

/// The types that an expression at a place of a policy may have.
pub fn result_types(field: &str) -> &'static [Type] {
    match field {
        "expression" => &[Type::Bool],
        "messageExpression" => &[Type::String],
        "valueExpression" => &[Type::String, Type::Null],
        _ => &[Type::Dyn],
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Criteria {
    fn from_json(matching: &Value) -> Self {
        let selector = |key: &str| match &matching[key] {
            Value::Null => Ok(LabelSelector::everything()),
            selector => LabelSelector::from_json(selector).map_err(|e| e.to_string()),
        };
        Self {
            rules: Rule::list(&matching["resourceRules"]),
            excluded: Rule::list(&matching["excludeResourceRules"]),
            equivalent: matching["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }
}

impl Binding {
    fn from_json(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let does = |action: &str| items(&spec["validationActions"]).any(|a| a == action);
        let matching = &spec["matchResources"];
        Self {
            name: text(&binding["metadata"]["name"]),
            criteria: matching.is_object().then(|| Criteria::from_json(matching)),
            params: spec["paramRef"].clone(),
            denies: does("Deny"),
            warns: does("Warn"),
        }
    }
}

impl Policy {
    /// Compiles a policy, with those of the bindings that name it.
    pub(super) fn compile(policy: &Value, bindings: &[Arc<Value>]) -> Self {
        let (name, spec) = (text(&policy["metadata"]["name"]), &policy["spec"]);
        let has_params = spec["paramKind"].is_object();
        let mut composed = BTreeMap::new();
        let mut compiled_variables = Vec::new();
        for variable in items(&spec["variables"]) {
            let given = variables(has_params, &composed);
            let program = compile(&variable["expression"], &given, &[Type::Dyn]);
            let ty = program.as_ref().map_or(Type::Dyn, |p| p.result().clone());
            composed.insert(text(&variable["name"]), ty);
            compiled_variables.push((text(&variable["name"]), program));
        }
        let given = variables(has_params, &composed);
        let validation = |validation: &Value| Validation {
            source: text(&validation["expression"]),
            program: compile(&validation["expression"], &given, result_types("expression")),
            message: text(&validation["message"]).trim().to_owned(),
            message_program: validation["messageExpression"].is_string().then(|| {
                let wanted = result_types("messageExpression");
                compile(&validation["messageExpression"], &given, wanted)
            }),
            reason: text(&validation["reason"]),
        };
        let kind = &spec["paramKind"];
        let bound = bindings.iter().filter(|b| b["spec"]["policyName"] == name.as_str());
        let without_variables: Vec<_> =
            given.iter().filter(|(name, _)| *name != "variables").cloned().collect();
        Self {
            fails_open: spec["failurePolicy"] == "Ignore",
            criteria: Criteria::from_json(&spec["matchConstraints"]),
            param_kind: has_params.then(|| (text(&kind["apiVersion"]), text(&kind["kind"]))),
            conditions: Conditions::compile(&spec["matchConditions"], &without_variables),
            validations: items(&spec["validations"]).map(validation).collect(),
            variables: compiled_variables,
            bindings: bound.map(|b| Binding::from_json(b)).collect(),
            name,
        }
    }
}

impl Policy {
    /// True when deciding may take long.
    pub(super) fn may_take_long(&self) -> bool {
        let long = |compiled: &Compiled| compiled.as_ref().is_ok_and(Program::may_take_long);
        self.conditions.may_take_long()
            || self.variables.iter().any(|(_, variable)| long(variable))
            || self.validations.iter().any(|validation| {
                long(&validation.program) || validation.message_program.as_ref().is_some_and(long)
            })
    }
}

fn compile(source: &Value, variables: &[(&str, Type)], wanted: &[Type]) -> Compiled {
    Program::compile(source.as_str().unwrap_or_default(), variables, wanted)
        .map_err(|e| format!("compilation failed: {e}"))
}
