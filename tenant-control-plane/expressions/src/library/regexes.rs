//! Regular expressions: `find`, `findAll`. The notation is RE2's, as in `matches`.

use cel::common::types::{INT_TYPE, STRING_TYPE};
use cel::{DeclarationError, Env, ExecutionError, Value};
use regex::Regex;

use super::{Args, Returned, failed, member, mismatch, returned, text, values};

pub(super) fn extension(environment: &mut Env) -> Result<(), DeclarationError> {
    member(environment, "find", STRING_TYPE, vec![STRING_TYPE], find)?;
    member(environment, "findAll", STRING_TYPE, vec![STRING_TYPE], find_all)?;
    member(environment, "findAll", STRING_TYPE, vec![STRING_TYPE, INT_TYPE], find_some)
}

fn compiled(pattern: &Value) -> Result<Regex, ExecutionError> {
    let pattern = text(pattern)?;
    Regex::new(pattern).map_err(|e| failed("find", format!("Illegal regex: {e}")))
}

fn find<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [subject, pattern] = values(args)?;
    let found = compiled(&pattern)?.find(text(&subject)?).map_or("", |m| m.as_str()).to_owned();
    returned(found)
}

fn find_all<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [subject, pattern] = values(args)?;
    all(&subject, &pattern, usize::MAX)
}

fn find_some<'b, 'v>(args: Args<'b, 'v>) -> Returned<'b, 'v> {
    let [subject, pattern, limit] = values(args)?;
    let Value::Int(limit) = limit else { return Err(mismatch(&limit, "int")) };
    all(&subject, &pattern, usize::try_from(limit).unwrap_or(usize::MAX))
}

fn all<'b, 'v>(subject: &Value, pattern: &Value, limit: usize) -> Returned<'b, 'v> {
    let pattern = compiled(pattern)?;
    let found = pattern.find_iter(text(subject)?).take(limit);
    let found: Vec<Value> = found.map(|m| Value::from(m.as_str())).collect();
    returned(Value::List(found.into()))
}
