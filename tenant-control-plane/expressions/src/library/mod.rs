//! The functions that expressions may call: the language's own, and Kubernetes' libraries.
//!
//! Source: Kubernetes documentation, "Common Expression Language in Kubernetes: Kubernetes CEL
//! libraries".

pub(crate) mod authz;
pub(crate) mod heavy;
mod lists;
mod net;
mod quantity;
mod regexes;
mod sets;
pub(crate) mod signatures;

use std::sync::Arc;

use cel::common::types::{DYN_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::objects::Opaque;
use cel::{DeclarationError, Env, ExecutionError, Value, extensions};

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Returned<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;
type Library = fn(&mut Env) -> Result<(), DeclarationError>;
type Overload = for<'b, 'v> fn(Args<'b, 'v>) -> Returned<'b, 'v>;

/// The environment of all expressions.
pub(crate) fn environment() -> Env {
    let mut environment = Env::stdlib();
    let libraries: [Library; 9] = [
        extensions::strings,
        extensions::lists,
        extensions::math,
        extensions::encoders,
        lists::extension,
        quantity::extension,
        net::extension,
        sets::extension,
        authz::extension,
    ];
    for library in libraries {
        environment.add_extension(library).expect("libraries declare different functions");
    }
    environment
}

/// Declares a member function. Its id is made from name and types.
fn member(
    environment: &mut Env,
    name: &str,
    target: Type,
    arguments: Vec<Type>,
    overload: Overload,
) -> Result<(), DeclarationError> {
    let id = id(name, std::iter::once(&target).chain(&arguments));
    environment.add_member_overload(name, &id, target, arguments, overload)
}

/// Declares a function.
fn free(
    environment: &mut Env,
    name: &str,
    arguments: Vec<Type>,
    overload: Overload,
) -> Result<(), DeclarationError> {
    let id = id(name, &arguments);
    environment.add_overload(name, &id, arguments, overload)
}

fn id<'a>(name: &str, types: impl IntoIterator<Item = &'a Type>) -> String {
    let types: Vec<_> = types.into_iter().map(Type::name).collect();
    format!("kubernetes_{name}({})", types.join(","))
}

/// The arguments as values, as many as are expected.
fn values<const N: usize>(arguments: Args<'_, '_>) -> Result<[Value; N], ExecutionError> {
    let values: Vec<Value> =
        arguments.iter().map(|a| Value::try_from(a.as_ref())).collect::<Result<_, _>>()?;
    let count = values.len();
    values.try_into().map_err(|_| ExecutionError::invalid_argument_count(N, count))
}

fn returned<'b, 'v>(value: impl Into<Value>) -> Returned<'b, 'v> {
    let value = <Box<dyn Val>>::try_from(value.into())?;
    Ok(CowVal::Owned(value))
}

fn text(value: &Value) -> Result<&str, ExecutionError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(mismatch(other, "string")),
    }
}

fn mismatch(value: &Value, wanted: &str) -> ExecutionError {
    ExecutionError::UnexpectedType { got: value.type_of().to_string(), want: wanted.to_owned() }
}

fn failed(function: &str, why: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

/// A value of a library's own type.
fn opaque<'b, 'v>(value: impl Opaque) -> Returned<'b, 'v> {
    returned(Value::Opaque(Arc::new(value)))
}

/// Reads a value of a library's own type.
fn own<T: Opaque + Clone>(value: &Value) -> Result<T, ExecutionError> {
    match value {
        Value::Opaque(inner) => inner.downcast_ref::<T>().cloned(),
        _ => None,
    }
    .ok_or_else(|| mismatch(value, std::any::type_name::<T>()))
}

/// Any type.
fn any() -> Type {
    DYN_TYPE
}
