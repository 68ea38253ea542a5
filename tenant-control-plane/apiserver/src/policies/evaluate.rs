//! What a policy says about an object, given a parameter.

use std::collections::HashMap;

use expressions::{Authorizer, Inputs, Outcome, POLICY_BUDGET, Program};
use machinery::RequestInfo;
use serde_json::Value;

use super::compiled::{Policy, Validation};
use crate::hooks::conditions::failure;

/// Longest message that an expression may make, in bytes.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// An objection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    /// Why.
    pub(super) message: String,
    /// Reason of the status, or empty.
    pub(super) reason: String,
}

impl Decision {
    /// An objection without a reason of its own.
    pub(super) fn invalid(message: String) -> Self {
        Self { message, reason: String::new() }
    }
}

/// What a policy's expressions see of a request.
pub(super) struct Evaluation<'a> {
    pub(super) policy: &'a Policy,
    pub(super) object: Value,
    pub(super) old: Value,
    pub(super) request: Value,
    pub(super) namespace: Value,
    pub(super) authorizer: Authorizer,
    pub(super) info: &'a RequestInfo,
}

impl Evaluation<'_> {
    /// The objections, given a parameter.
    pub(super) fn decide(&self, param: &Value) -> Vec<Decision> {
        let mut inputs = Inputs::new()
            .with("object", &self.object)
            .with("oldObject", &self.old)
            .with("request", &self.request)
            .with("namespaceObject", &self.namespace)
            .with("params", param)
            .with_authorizer(&self.authorizer, self.info);
        match self.policy.conditions.decide(&mut inputs) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(why) => return self.undecided(why).into_iter().collect(),
        }
        inputs.set_budget(POLICY_BUDGET);
        let failed = self.variables(&mut inputs);
        let judged = self.policy.validations.iter();
        judged.filter_map(|validation| self.judge(validation, &inputs, &failed)).collect()
    }

    /// An error is an objection unless the policy fails open.
    fn undecided(&self, why: String) -> Option<Decision> {
        (!self.policy.fails_open).then(|| Decision::invalid(why))
    }

    /// Evaluates the policy's variables, each over those before it. Returns those that failed.
    fn variables(&self, inputs: &mut Inputs<'_>) -> HashMap<String, String> {
        let (mut values, mut failed) = (Vec::new(), HashMap::new());
        inputs.set_fields("variables", Vec::new());
        for (name, program) in &self.policy.variables {
            let evaluated = match program {
                Ok(program) => program.value(inputs).map_err(|e| explain(e, &failed)),
                Err(fault) => Err(fault.clone()),
            };
            match evaluated {
                Ok(value) => {
                    values.push((name.clone(), value));
                    inputs.set_fields("variables", values.clone());
                }
                Err(why) => {
                    failed.insert(name.clone(), why);
                }
            }
        }
        failed
    }

    fn judge(
        &self,
        validation: &Validation,
        inputs: &Inputs<'_>,
        failed: &HashMap<String, String>,
    ) -> Option<Decision> {
        let holds = match &validation.program {
            Ok(program) => {
                program.holds(inputs).map_err(|e| failure(&validation.source, &explain(e, failed)))
            }
            Err(fault) => Err(fault.clone()),
        };
        match holds {
            Ok(true) => None,
            Err(why) => self.undecided(why),
            Ok(false) => {
                let computed = match &validation.message_program {
                    Some(Ok(program)) => message(program, inputs),
                    _ => None,
                };
                let message = computed.unwrap_or_else(|| match validation.message.as_str() {
                    "" => format!("failed expression: {}", validation.source.trim()),
                    message => message.to_owned(),
                });
                Some(Decision { message, reason: validation.reason.clone() })
            }
        }
    }
}

/// A missing key that is the name of a variable means that the variable has no value.
fn explain(error: String, failed: &HashMap<String, String>) -> String {
    let name = error.strip_prefix("no such key: ");
    match name.and_then(|name| Some((name, failed.get(name)?))) {
        Some((name, why)) => format!("composited variable {name:?} fails to evaluate: {why}"),
        None => error,
    }
}

/// The message that an expression makes, if it is one.
fn message(program: &Program, inputs: &Inputs<'_>) -> Option<String> {
    let Ok(Outcome::Json(Value::String(text))) = program.evaluate(inputs) else { return None };
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
    fits.then(|| text.to_owned())
}
