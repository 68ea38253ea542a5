//! Lists as sets: `sets.contains`, `sets.equivalent`, `sets.intersects`.

use std::sync::Arc;

use cel::common::types::LIST_TYPE;
use cel::{DeclarationError, Env, ExecutionError, Value};

use super::{Args, Returned, free, mismatch, returned, values};

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    free(environment, "sets.contains", vec![LIST_TYPE, LIST_TYPE], contains)?;
    free(environment, "sets.equivalent", vec![LIST_TYPE, LIST_TYPE], equivalent)?;
    free(environment, "sets.intersects", vec![LIST_TYPE, LIST_TYPE], intersects)
}

type Pair = (Arc<Vec<Value>>, Arc<Vec<Value>>);

fn lists(args: Args<'_, '_>) -> Result<Pair, ExecutionError> {
    match values(args)? {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        [a, _] => Err(mismatch(&a, "list")),
    }
}

fn has_all(list: &[Value], wanted: &[Value]) -> bool {
    wanted.iter().all(|item| list.contains(item))
}

fn contains<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (list, wanted) = lists(args)?;
    returned(has_all(&list, &wanted))
}

fn equivalent<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = lists(args)?;
    returned(has_all(&a, &b) && has_all(&b, &a))
}

fn intersects<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let (a, b) = lists(args)?;
    returned(a.iter().any(|item| b.contains(item)))
}
