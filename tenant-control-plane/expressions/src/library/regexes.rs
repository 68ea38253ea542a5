//! Regular expressions: `matches`, `find`, `findAll`. The notation is RE2's.

use cel::common::types::{CelInt, CelString};
use cel::common::value::CowVal;
use cel::{ExecutionError, Value};

use super::{Returned, returned};
use crate::budget::Budget;

/// Calls one of these functions: a text, a pattern, and how often it is to be found at most.
pub(super) fn call<'b, 'v>(
    name: &str,
    arguments: &[CowVal<'_, '_>],
    budget: &Budget,
) -> Returned<'b, 'v> {
    let no_overload = || {
        let types = arguments.iter().map(|a| a.get_type().name().to_owned()).collect();
        ExecutionError::no_such_overload(name, types)
    };
    let text = |at: usize| arguments.get(at).and_then(|a| a.downcast_ref::<CelString>());
    let (subject, pattern) = (text(0).ok_or_else(no_overload)?, text(1).ok_or_else(no_overload)?);
    let (subject, pattern) = (subject.inner(), budget.pattern(pattern.inner())?);
    match name {
        "matches" => returned(pattern.is_match(subject)),
        "find" => returned(pattern.find(subject).map_or("", |found| found.as_str()).to_owned()),
        _ => {
            let most = match arguments.get(2) {
                None => usize::MAX,
                Some(most) => {
                    let most = most.downcast_ref::<CelInt>().ok_or_else(no_overload)?;
                    usize::try_from(*most.inner()).unwrap_or(usize::MAX)
                }
            };
            let found = pattern.find_iter(subject).take(most);
            let found: Vec<Value> = found.map(|m| Value::from(m.as_str())).collect();
            returned(Value::List(found.into()))
        }
    }
}
