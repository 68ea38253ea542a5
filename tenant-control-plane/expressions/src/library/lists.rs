//! Lists: `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::types::LIST_TYPE;
use cel::{DeclarationError, Env, ExecutionError, Value};

use super::{Args, Returned, any, failed, member, mismatch, returned, values};

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    member(environment, "isSorted", LIST_TYPE, vec![], is_sorted)?;
    member(environment, "sum", LIST_TYPE, vec![], sum)?;
    member(environment, "min", LIST_TYPE, vec![], min)?;
    member(environment, "max", LIST_TYPE, vec![], max)?;
    member(environment, "indexOf", LIST_TYPE, vec![any()], index_of)?;
    member(environment, "lastIndexOf", LIST_TYPE, vec![any()], last_index_of)
}

fn list(value: Value) -> Result<Arc<Vec<Value>>, ExecutionError> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(mismatch(&other, "list")),
    }
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, ExecutionError> {
    a.partial_cmp(b).ok_or_else(|| ExecutionError::ValuesNotComparable(a.clone(), b.clone()))
}

fn is_sorted<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [items] = values(args)?;
    let items = list(items)?;
    for pair in items.windows(2) {
        if compare(&pair[0], &pair[1])? == Ordering::Greater {
            return returned(false);
        }
    }
    returned(true)
}

fn sum<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [items] = values(args)?;
    let mut total = None;
    for item in list(items)?.iter() {
        total = Some(match (total, item) {
            (None, item) => item.clone(),
            (Some(Value::Int(a)), Value::Int(b)) => {
                Value::Int(a.checked_add(*b).ok_or_else(|| failed("sum", "integer overflow"))?)
            }
            (Some(Value::UInt(a)), Value::UInt(b)) => Value::UInt(
                a.checked_add(*b).ok_or_else(|| failed("sum", "unsigned integer overflow"))?,
            ),
            (Some(Value::Float(a)), Value::Float(b)) => Value::Float(a + b),
            (Some(a), b) => return Err(ExecutionError::ValuesNotComparable(a, b.clone())),
        });
    }
    returned(total.unwrap_or(Value::Int(0)))
}

fn least(args: Args<'_, '_>, name: &str, wanted: Ordering) -> Result<Value, ExecutionError> {
    let [items] = values(args)?;
    let items = list(items)?;
    let (first, rest) =
        items.split_first().ok_or_else(|| failed(name, format!("{name} called on empty list")))?;
    let mut found = first;
    for item in rest {
        if compare(item, found)? == wanted {
            found = item;
        }
    }
    Ok(found.clone())
}

fn min<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(least(args, "min", Ordering::Less)?)
}

fn max<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    returned(least(args, "max", Ordering::Greater)?)
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [items, wanted] = values(args)?;
    let at = list(items)?.iter().position(|item| *item == wanted);
    returned(at.map_or(-1, |at| at as i64))
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [items, wanted] = values(args)?;
    let at = list(items)?.iter().rposition(|item| *item == wanted);
    returned(at.map_or(-1, |at| at as i64))
}
