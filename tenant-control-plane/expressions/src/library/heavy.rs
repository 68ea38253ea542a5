//! Functions that can make much of little, or compare everything with everything: what a call
//! costs is known from its arguments together, and paid before it is made.
//!
//! Source of the prices: upstream's `apiserver/pkg/cel/library/cost.go`.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr};
use cel::common::types::CelString;
use cel::common::value::CowVal;
use cel::{ExecutionError, FunctionContext, Value};

use super::{regexes, returned};
use crate::budget::{Budget, Function, Size};

/// What asking the server's authorizers costs.
const AUTHORIZATION: i64 = 350_000;

const NAMES: [&str; 14] = [
    "check",
    "distinct",
    "find",
    "findAll",
    "format",
    "indexOf",
    "join",
    "lastIndexOf",
    "matches",
    "replace",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "split",
];
/// Names of the arguments while a function is called. No expression can spell them.
const ARGUMENTS: [&str; 4] = ["@0", "@1", "@2", "@3"];

/// True for the (full) name of such a function.
pub(crate) fn is_heavy(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The function that pays for and calls the function that its first argument names. What that one
/// is applied to counts as an argument.
pub(crate) fn calls(budget: &Arc<Budget>) -> Function {
    let budget = budget.clone();
    Box::new(move |context| {
        let mut given = std::mem::take(&mut context.args).into_iter();
        let name = given
            .next()
            .and_then(|name| Some(name.downcast_ref::<CelString>()?.inner().to_owned()));
        let (name, arguments) = (name.unwrap_or_default(), given.collect::<Vec<_>>());
        let sizes: Vec<_> = arguments.iter().map(|a| Size::of(a.as_ref(), &budget)).collect();
        budget.spend(price(&name, &sizes))?;
        match name.as_str() {
            "matches" | "find" | "findAll" => regexes::call(&name, &arguments, &budget),
            _ => call(context, &name, arguments),
        }
    })
}

fn call<'context, 'call>(
    context: &FunctionContext<'context, 'call>,
    name: &str,
    arguments: Vec<CowVal<'context, 'call>>,
) -> Result<CowVal<'context, 'call>, ExecutionError> {
    let mut scope = context.ptx.new_inner_scope();
    let variable = |name: &str| IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) };
    let mut names = ARGUMENTS.iter();
    let mut variables = Vec::new();
    for (argument, name) in arguments.into_iter().zip(names.by_ref()) {
        scope.add_variable_as_val(*name, argument.into_owned());
        variables.push(variable(name));
    }
    let (target, name) = match name.split_once('.') {
        Some((space, name)) => (variable(space), name),
        None => (variables.remove(0), name),
    };
    let call =
        CallExpr { func_name: name.to_owned(), target: Some(Box::new(target)), args: variables };
    returned(Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, &scope)?)
}

/// What a call with arguments of these sizes costs at most, its result included.
fn price(name: &str, sizes: &[Size]) -> i64 {
    let size = |at: usize| sizes.get(at).copied().unwrap_or_default();
    let (of, by) = (size(0), size(1));
    let times = |a: i64, b: i64| a.saturating_mul(b);
    let own = match name {
        "check" => AUTHORIZATION,
        "distinct" => times(of.nodes, of.units()),
        "findAll" => times(3, of.bytes).saturating_add(times(of.bytes, by.units()) / 4),
        "format" => (by.bytes + 30 * by.nodes) / 5,
        "join" => times(of.nodes, by.bytes) / 10,
        "replace" => times(of.bytes / by.bytes.max(1) + 1, size(2).bytes) / 10,
        "sets.contains" | "sets.equivalent" | "sets.intersects" => times(of.nodes, by.units()),
        "split" => times(3, of.bytes / by.bytes.max(1) + 1),
        // Finding: a text in a text (or list), a pattern in a text.
        _ => times(of.bytes + of.nodes, by.units()) / 4,
    };
    sizes.iter().map(|size| size.units()).fold(own, i64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_grows_with_what_is_multiplied() {
        let text = |bytes| Size { nodes: 1, bytes };
        let list = |nodes| Size { nodes, bytes: 0 };
        let million = 1_000_000;
        assert!(price("replace", &[text(million), text(1), text(million)]) > 1_000 * million);
        assert!(price("replace", &[text(100), text(1), text(10)]) < 1_000);
        assert!(price("join", &[list(million), text(million)]) > 1_000 * million);
        assert!(price("indexOf", &[text(million), text(million)]) > 1_000 * million);
        assert!(price("sets.contains", &[list(10_000), list(10_000)]) > 10 * million);
        assert!(price("matches", &[text(64), text(32)]) < 1_000);
    }
}
