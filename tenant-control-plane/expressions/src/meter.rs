//! Rewrites an expression so that evaluating it charges a [`Budget`](crate::budget::Budget): loops
//! for their rounds, operators and functions for what they read and make.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};
use cel::common::types::CelString;

use crate::budget::{CALLS, GLANCES, MAKES, READS};
use crate::library::{heavy, signatures};

/// Operators that read what they are applied to.
const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

/// Lets an expression charge for what it does, and for its result.
pub(crate) fn meter(expression: &mut IdedExpr) {
    inside(expression);
    wrap(MAKES, expression);
}

/// The longest way from an expression to a part of a part of it.
pub(crate) fn depth(expression: &IdedExpr) -> usize {
    let (mut open, mut deepest) = (vec![(expression, 1)], 0);
    while let Some((expression, depth)) = open.pop() {
        deepest = deepest.max(depth);
        open.extend(parts(expression).into_iter().map(|part| (part, depth + 1)));
    }
    deepest
}

/// True for a metered expression that loops or calls a function whose cost its arguments multiply.
pub(crate) fn may_take_long(expression: &IdedExpr) -> bool {
    let mut open = vec![expression];
    while let Some(expression) = open.pop() {
        match &expression.expr {
            Expr::Comprehension(_) => return true,
            Expr::Call(call) if call.func_name == CALLS => return true,
            _ => open.extend(parts(expression)),
        }
    }
    false
}

fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
        Expr::Struct(object) => {
            object.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect()
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn inside(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Comprehension(comprehension) => in_loop(comprehension),
        Expr::Call(_) => in_call(expression),
        Expr::Select(select) => inside(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| in_entry(&mut entry.expr)),
        Expr::Struct(object) => {
            object.entries.iter_mut().for_each(|entry| in_entry(&mut entry.expr));
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn in_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => meter(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            meter(&mut entry.key);
            meter(&mut entry.value);
        }
    }
}

fn in_call(expression: &mut IdedExpr) {
    let Expr::Call(call) = &mut expression.expr else { return };
    call.target.iter_mut().for_each(|target| inside(target));
    call.args.iter_mut().for_each(inside);
    let full_name = signatures::namespaced(call);
    let name = full_name.as_deref().unwrap_or(&call.func_name).to_owned();
    // What a full name begins with is no value.
    let target = call.target.iter_mut().map(AsMut::as_mut).filter(|_| full_name.is_none());
    match (name.as_str(), call.args.as_mut_slice()) {
        (operators::ADD | operators::OPT_INDEX | operators::OPT_SELECT, _) => {
            wrap(MAKES, expression);
        }
        // The shorter of two values decides how long it takes to compare them.
        (name, [_, b]) if COMPARISONS.contains(&name) && is_literal(b) => {}
        (name, [a, _]) if COMPARISONS.contains(&name) => wrap(READS, a),
        (operators::IN, [_, list]) => wrap(READS, list),
        ("size", of) => target.chain(of).for_each(|of| wrap(GLANCES, of)),
        (name, _) if heavy::is_heavy(name) => {
            let operands = target.map(std::mem::take).collect::<Vec<_>>();
            let mut args = vec![IdedExpr { id: expression.id, expr: text(name) }];
            args.extend(operands.into_iter().chain(std::mem::take(&mut call.args)));
            *call = CallExpr { func_name: CALLS.to_owned(), target: None, args };
        }
        (name, of) if signatures::is_function(name) => {
            target.chain(of).for_each(|of| wrap(READS, of));
            if !signatures::is_small(name) {
                wrap(MAKES, expression);
            }
        }
        _ => {}
    }
}

fn in_loop(of: &mut ComprehensionExpr) {
    for part in [&mut of.iter_range, &mut of.accu_init] {
        inside(part);
        wrap(READS, part);
    }
    inside(&mut of.result);
    // `map` and `filter` are recognised by their shape, and then run in place: of them, what is
    // evaluated in each round is wrapped.
    let is_plain = matches!(of.loop_cond.expr, Expr::Literal(_));
    if is_plain && in_appending(&mut of.loop_step, &of.accu_var) {
        return;
    }
    inside(&mut of.loop_cond);
    inside(&mut of.loop_step);
    wrap_always(GLANCES, &mut of.loop_cond);
}

/// True for a step that adds to a list: `all + [x]`, or `condition ? all + [x] : all`.
fn in_appending(step: &mut IdedExpr, accumulator: &str) -> bool {
    if let Some(items) = appended(step, accumulator) {
        for item in items {
            inside(item);
            wrap_always(MAKES, item);
        }
        return true;
    }
    let Expr::Call(call) = &mut step.expr else { return false };
    match call.args.as_mut_slice() {
        [condition, step, otherwise]
            if call.func_name == operators::CONDITIONAL && is_named(otherwise, accumulator) =>
        {
            let Some(items) = appended(step, accumulator) else { return false };
            items.iter_mut().for_each(meter);
            inside(condition);
            wrap_always(GLANCES, condition);
            true
        }
        _ => false,
    }
}

/// What `all + [x]` adds.
fn appended<'e>(step: &'e mut IdedExpr, accumulator: &str) -> Option<&'e mut [IdedExpr]> {
    let Expr::Call(call) = &mut step.expr else { return None };
    match call.args.as_mut_slice() {
        [all, IdedExpr { expr: Expr::List(list), .. }]
            if call.func_name == operators::ADD && is_named(all, accumulator) =>
        {
            Some(&mut list.elements)
        }
        _ => None,
    }
}

fn is_named(expression: &IdedExpr, name: &str) -> bool {
    matches!(&expression.expr, Expr::Ident(known) if known == name)
}

fn is_literal(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(_))
}

fn text(text: &str) -> Expr {
    Expr::Literal(LiteralValue::String(CelString::from(text.to_owned())))
}

/// Wraps an expression that may be of any size and is not paid for yet.
fn wrap(function: &str, expression: &mut IdedExpr) {
    let is_paid = |call: &CallExpr| {
        [MAKES, CALLS].contains(&call.func_name.as_str()) || call.func_name == function
    };
    match &expression.expr {
        Expr::Literal(_) => {}
        Expr::Call(call) if is_paid(call) => {}
        _ => wrap_always(function, expression),
    }
}

fn wrap_always(function: &str, expression: &mut IdedExpr) {
    let inner = std::mem::take(expression);
    let id = inner.id;
    let call = CallExpr { func_name: function.to_owned(), target: None, args: vec![inner] };
    *expression = IdedExpr { id, expr: Expr::Call(call) };
}
