//! `matchConditions` of webhooks and policies: expressions that all must hold.

use std::sync::Arc;

use expressions::{Access, Authorizer, CONDITIONS_BUDGET, Inputs, Program, Type};
use machinery::{Cause, RequestInfo, UserInfo, names};
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::registry::Call;
use crate::strategy::cause;

/// Most conditions in one list.
const MAX: usize = 64;

/// Variables of a webhook's conditions.
pub const WEBHOOK: [(&str, Type); 4] = [
    ("object", Type::Dyn),
    ("oldObject", Type::Dyn),
    ("request", Type::Dyn),
    ("authorizer", Type::AUTHORIZER),
];

/// The server's authorizers, for expressions that ask them.
struct Authorizers(Arc<auth::Authorizer>);

impl Access for Authorizers {
    fn decide(&self, user: &UserInfo, request: &RequestInfo) -> (bool, String) {
        let decision = self.0.authorize(user, request);
        (decision.is_allowed(), decision.reason().to_owned())
    }
}

/// The variable `authorizer` of a request.
pub fn authorizer(call: &Call) -> Authorizer {
    Authorizer::new(Arc::new(Authorizers(call.api.authorizer.clone())), call.user.clone())
}

/// Compiled conditions.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Result<Program, String>>);

impl Conditions {
    /// Compiles a list of conditions over these variables.
    pub fn compile(list: &Value, variables: &[(&str, Type)]) -> Self {
        let conditions = list.as_array().into_iter().flatten();
        let compiled = conditions.map(|condition| {
            let source = condition["expression"].as_str().unwrap_or_default().trim();
            Program::compile(source, variables, &[Type::Bool])
                .map_err(|e| format!("compilation failed: {e}"))
        });
        Self(compiled.collect())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when deciding them may take long.
    pub fn may_take_long(&self) -> bool {
        self.0.iter().flatten().any(Program::may_take_long)
    }

    /// True when all hold, false when one does not. Together they have a budget of their own.
    ///
    /// # Errors
    /// When none is known not to hold, but some cannot be decided.
    pub fn decide(&self, inputs: &mut Inputs<'_>) -> Result<bool, String> {
        inputs.set_budget(CONDITIONS_BUDGET);
        let mut undecided = Vec::new();
        for condition in &self.0 {
            let decided = match condition {
                Ok(program) => program.holds(inputs).map_err(|e| failure(program.source(), &e)),
                Err(fault) => Err(fault.clone()),
            };
            match decided {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => undecided.push(why),
            }
        }
        match undecided.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// Evaluates, if that may take long, where it does not hold up the requests that share a thread.
pub fn evaluating<R>(may_take_long: bool, evaluate: impl FnOnce() -> R) -> R {
    let flavor = || Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match may_take_long && flavor().is_ok_and(|f| f == RuntimeFlavor::MultiThread) {
        true => tokio::task::block_in_place(evaluate),
        false => evaluate(),
    }
}

/// How upstream says that an expression has no value.
pub fn failure(source: &str, why: &str) -> String {
    format!("expression '{source}' resulted in error: {why}")
}

/// What is wrong with a list of conditions.
pub fn faults(list: &Value, at: &str, variables: &[(&str, Type)]) -> Vec<Cause> {
    let conditions = list.as_array().map_or(&[][..], Vec::as_slice);
    let mut causes = Vec::new();
    if conditions.len() > MAX {
        let text = format!("Too many: {}: must have at most {MAX} items", conditions.len());
        causes.push(cause("FieldValueTooMany", at, text));
    }
    let mut seen = Vec::new();
    for (index, condition) in conditions.iter().enumerate() {
        let here = format!("{at}[{index}]");
        let source = condition["expression"].as_str().unwrap_or_default().trim();
        causes.extend(expression_fault(
            source,
            &format!("{here}.expression"),
            variables,
            &[Type::Bool],
        ));
        let name = condition["name"].as_str().unwrap_or_default();
        let place = format!("{here}.name");
        if name.is_empty() {
            causes.push(cause("FieldValueRequired", &place, "Required value"));
            continue;
        }
        for fault in names::qualified_name(name).err().unwrap_or_default() {
            let text = format!("Invalid value: {name:?}: {fault}");
            causes.push(cause("FieldValueInvalid", &place, text));
        }
        if seen.contains(&name) {
            causes.push(cause("FieldValueDuplicate", &place, format!("Duplicate value: {name:?}")));
        }
        seen.push(name);
    }
    causes
}

/// What is wrong with an expression that must be there.
pub fn expression_fault(
    source: &str,
    at: &str,
    variables: &[(&str, Type)],
    wanted: &[Type],
) -> Option<Cause> {
    if source.is_empty() {
        return Some(cause("FieldValueRequired", at, "Required value"));
    }
    let fault = Program::compile(source, variables, wanted).err()?;
    // A wrong result is told without the compiler's preamble.
    let text = match fault.starts_with("must evaluate") {
        true => fault,
        false => format!("compilation failed: {fault}"),
    };
    Some(cause("FieldValueInvalid", at, format!("Invalid value: {source:?}: {text}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decide(sources: &[&str]) -> Result<bool, String> {
        let list: Vec<Value> =
            sources.iter().map(|s| json!({"name": "n", "expression": s})).collect();
        let object = json!({"metadata": {"name": "a"}});
        let mut inputs = Inputs::new().with("object", &object);
        Conditions::compile(&list.into(), &WEBHOOK).decide(&mut inputs)
    }

    #[test]
    fn one_false_condition_decides_whatever_the_others_are() {
        assert_eq!(decide(&["object.metadata.name == 'a'", "true"]), Ok(true));
        assert_eq!(decide(&["object.spec.x", "object.metadata.name == 'b'"]), Ok(false));
        let undecided = decide(&["true", "object.spec.x"]).unwrap_err();
        assert_eq!(undecided, "expression 'object.spec.x' resulted in error: no such key: spec");
    }

    #[test]
    fn conditions_that_take_long_leave_the_worker_only_where_there_are_others() {
        let decided = || evaluating(true, || decide(&["[1].all(x, x > 0)"]));
        assert_eq!(decided(), Ok(true));
        let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(single.block_on(async { decided() }), Ok(true));
        let many = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let task = many.spawn(async move { evaluating(true, || decide(&["true"])) });
        assert_eq!(many.block_on(task).unwrap(), Ok(true));
    }

    #[test]
    fn faults_name_their_fields() {
        let list = json!([
            {"name": "a", "expression": "... [] bad"}, {"name": "a", "expression": "1"}, {},
        ]);
        let faults = faults(&list, "webhooks[0].matchConditions", &WEBHOOK);
        let all: Vec<_> = faults.iter().map(|c| (c.reason.as_str(), c.field.as_str())).collect();
        let at = |field: &str| format!("webhooks[0].matchConditions{field}");
        assert_eq!(
            all,
            [
                ("FieldValueInvalid", at("[0].expression").as_str()),
                ("FieldValueInvalid", at("[1].expression").as_str()),
                ("FieldValueDuplicate", at("[1].name").as_str()),
                ("FieldValueRequired", at("[2].expression").as_str()),
                ("FieldValueRequired", at("[2].name").as_str()),
            ]
        );
        assert!(faults[0].message.contains("compilation failed: ERROR: "));
    }
}
