//! Which functions there are, and what they return.
//!
//! **To add a function**: add its line to [`FUNCTIONS`] (or [`NAMESPACED`]) and its overloads to a
//! library beside this file.

use cel::common::ast::{CallExpr, Expr};

use crate::library::authz;
use crate::types::Type;

/// What a function is applied to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// Nothing: `size(x)`.
    None,
    /// A value of one of some types: `x.startsWith(y)`.
    Of(&'static [Type]),
    /// Either way.
    Both,
}

use Target::{Both, None as Free, Of};

const ANY: Target = Of(&[]);
const TEXT: Target = Of(&[Type::String]);
const TIME: Target = Of(&[Type::Timestamp]);
const SPAN_OR_TIME: Target = Of(&[Type::Timestamp, Type::Duration]);
const QUANTITY: Type = Type::Named("kubernetes.Quantity");
const IP: Type = Type::Named("net.IP");
const CIDR: Type = Type::Named("net.CIDR");
const AUTHORIZER: Target = Of(&[Type::Named(authz::AUTHORIZER)]);
const GROUP: Target = Of(&[Type::Named("kubernetes.authorization.GroupCheck")]);
const RESOURCE_TYPE: Type = Type::Named(authz::RESOURCE);
const RESOURCE: Target = Of(&[RESOURCE_TYPE]);
const CHECK: Target = Of(&[RESOURCE_TYPE, Type::Named("kubernetes.authorization.PathCheck")]);
const DECISION_TYPE: Type = Type::Named("kubernetes.authorization.Decision");
const DECISION: Target = Of(&[DECISION_TYPE]);
const AMOUNT: Target = Of(&[QUANTITY]);
const ADDRESS: Target = Of(&[IP]);
const NETWORK: Target = Of(&[CIDR]);

/// Name, what it is applied to, least and most arguments, result.
type Signature = (&'static str, Target, usize, usize, Type);

const FUNCTIONS: &[Signature] = &[
    // The language.
    ("bool", Free, 1, 1, Type::Bool),
    ("bytes", Free, 1, 1, Type::Bytes),
    ("contains", TEXT, 1, 1, Type::Bool),
    ("double", Free, 1, 1, Type::Double),
    ("duration", Free, 1, 1, Type::Duration),
    ("dyn", Free, 1, 1, Type::Dyn),
    ("endsWith", TEXT, 1, 1, Type::Bool),
    ("getDate", TIME, 0, 1, Type::Int),
    ("getDayOfMonth", TIME, 0, 1, Type::Int),
    ("getDayOfWeek", TIME, 0, 1, Type::Int),
    ("getDayOfYear", TIME, 0, 1, Type::Int),
    ("getFullYear", TIME, 0, 1, Type::Int),
    ("getHours", SPAN_OR_TIME, 0, 1, Type::Int),
    ("getMilliseconds", SPAN_OR_TIME, 0, 1, Type::Int),
    ("getMinutes", SPAN_OR_TIME, 0, 1, Type::Int),
    ("getMonth", TIME, 0, 1, Type::Int),
    ("getSeconds", SPAN_OR_TIME, 0, 1, Type::Int),
    ("hasValue", ANY, 0, 0, Type::Bool),
    ("int", Free, 1, 1, Type::Int),
    ("matches", Both, 1, 2, Type::Bool),
    ("or", ANY, 1, 1, Type::Dyn),
    ("orValue", ANY, 1, 1, Type::Dyn),
    ("size", Both, 0, 1, Type::Int),
    ("startsWith", TEXT, 1, 1, Type::Bool),
    ("string", Free, 1, 1, Type::String),
    ("timestamp", Free, 1, 1, Type::Timestamp),
    ("type", Free, 1, 1, Type::Dyn),
    ("uint", Free, 1, 1, Type::UInt),
    ("value", ANY, 0, 0, Type::Dyn),
    // Strings.
    ("charAt", TEXT, 1, 1, Type::String),
    ("format", TEXT, 1, 1, Type::String),
    ("join", ANY, 0, 1, Type::String),
    ("lowerAscii", TEXT, 0, 0, Type::String),
    ("replace", TEXT, 2, 3, Type::String),
    ("split", TEXT, 1, 2, Type::Dyn),
    ("substring", TEXT, 1, 2, Type::String),
    ("trim", TEXT, 0, 0, Type::String),
    ("upperAscii", TEXT, 0, 0, Type::String),
    // Strings and lists.
    ("indexOf", ANY, 1, 2, Type::Int),
    ("lastIndexOf", ANY, 1, 2, Type::Int),
    ("reverse", ANY, 0, 0, Type::Dyn),
    // Lists.
    ("@sortByAssociatedKeys", ANY, 1, 1, Type::Dyn),
    ("distinct", ANY, 0, 0, Type::Dyn),
    ("flatten", ANY, 0, 1, Type::Dyn),
    ("isSorted", ANY, 0, 0, Type::Bool),
    ("max", ANY, 0, 0, Type::Dyn),
    ("min", ANY, 0, 0, Type::Dyn),
    ("slice", ANY, 2, 2, Type::Dyn),
    ("sort", ANY, 0, 0, Type::Dyn),
    ("sum", ANY, 0, 0, Type::Dyn),
    // Regular expressions.
    ("find", TEXT, 1, 1, Type::String),
    ("findAll", TEXT, 1, 2, Type::Dyn),
    // Quantities.
    ("add", AMOUNT, 1, 1, QUANTITY),
    ("asApproximateFloat", AMOUNT, 0, 0, Type::Double),
    ("asInteger", AMOUNT, 0, 0, Type::Int),
    ("compareTo", AMOUNT, 1, 1, Type::Int),
    ("isGreaterThan", AMOUNT, 1, 1, Type::Bool),
    ("isInteger", AMOUNT, 0, 0, Type::Bool),
    ("isLessThan", AMOUNT, 1, 1, Type::Bool),
    ("isQuantity", Free, 1, 1, Type::Bool),
    ("quantity", Free, 1, 1, QUANTITY),
    ("sign", AMOUNT, 0, 0, Type::Int),
    ("sub", AMOUNT, 1, 1, QUANTITY),
    // Authorization.
    ("allowed", DECISION, 0, 0, Type::Bool),
    ("check", CHECK, 1, 1, DECISION_TYPE),
    ("error", DECISION, 0, 0, Type::String),
    ("errored", DECISION, 0, 0, Type::Bool),
    ("group", AUTHORIZER, 1, 1, Type::Named("kubernetes.authorization.GroupCheck")),
    ("name", RESOURCE, 1, 1, RESOURCE_TYPE),
    ("namespace", RESOURCE, 1, 1, RESOURCE_TYPE),
    ("path", AUTHORIZER, 1, 1, Type::Named("kubernetes.authorization.PathCheck")),
    ("reason", DECISION, 0, 0, Type::String),
    ("resource", GROUP, 1, 1, RESOURCE_TYPE),
    ("serviceAccount", AUTHORIZER, 2, 2, Type::Named(authz::AUTHORIZER)),
    ("subresource", RESOURCE, 1, 1, RESOURCE_TYPE),
    // Addresses.
    ("cidr", Free, 1, 1, CIDR),
    ("containsCIDR", NETWORK, 1, 1, Type::Bool),
    ("containsIP", NETWORK, 1, 1, Type::Bool),
    ("family", ADDRESS, 0, 0, Type::Int),
    ("ip", Both, 0, 1, IP),
    ("isCIDR", Free, 1, 1, Type::Bool),
    ("isGlobalUnicast", ADDRESS, 0, 0, Type::Bool),
    ("isIP", Free, 1, 1, Type::Bool),
    ("isLoopback", ADDRESS, 0, 0, Type::Bool),
    ("isUnspecified", ADDRESS, 0, 0, Type::Bool),
    ("masked", NETWORK, 0, 0, CIDR),
    ("prefixLength", NETWORK, 0, 0, Type::Int),
];

/// Functions with a dot in their name.
const NAMESPACED: &[(&str, Type)] = &[
    // What `math.greatest` and `math.least` are expanded to.
    ("math.@max", Type::Dyn),
    ("math.@min", Type::Dyn),
    ("base64.decode", Type::Bytes),
    ("base64.encode", Type::String),
    ("lists.range", Type::Dyn),
    ("math.abs", Type::Dyn),
    ("math.bitAnd", Type::Dyn),
    ("math.bitNot", Type::Dyn),
    ("math.bitOr", Type::Dyn),
    ("math.bitShiftLeft", Type::Dyn),
    ("math.bitShiftRight", Type::Dyn),
    ("math.bitXor", Type::Dyn),
    ("math.ceil", Type::Double),
    ("math.floor", Type::Double),
    ("math.isFinite", Type::Bool),
    ("math.isInf", Type::Bool),
    ("math.isNaN", Type::Bool),
    ("math.round", Type::Double),
    ("math.sign", Type::Dyn),
    ("math.sqrt", Type::Double),
    ("math.trunc", Type::Double),
    ("optional.none", Type::Dyn),
    ("optional.of", Type::Dyn),
    ("optional.ofNonZeroValue", Type::Dyn),
    ("sets.contains", Type::Bool),
    ("sets.equivalent", Type::Bool),
    ("sets.intersects", Type::Bool),
    ("strings.quote", Type::String),
];

/// Names that stand for types.
const TYPES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// What is known of a call.
pub(crate) enum Found {
    /// It returns this.
    Result(Type),
    /// There is such a function, but not for this.
    NoOverload,
    /// There is no such function.
    Nothing,
}

/// Finds a function for a target and arguments of these types.
pub(crate) fn find(name: &str, target: Option<&Type>, arguments: &[Type]) -> Found {
    if let Some((_, result)) = NAMESPACED.iter().find(|(known, _)| *known == name) {
        return Found::Result(result.clone());
    }
    let mut named = FUNCTIONS.iter().filter(|(known, ..)| *known == name).peekable();
    if named.peek().is_none() {
        return Found::Nothing;
    }
    let fits = named.find(|(_, applied, least, most, _)| {
        let placed = match (applied, target) {
            (Free, None) | (Both, _) => true,
            (Of(types), Some(target)) => types.is_empty() || types.iter().any(|ty| target.fits(ty)),
            _ => false,
        };
        placed && (*least..=*most).contains(&arguments.len())
    });
    match fits {
        // Of the network's address: the same name as the conversion.
        Some((.., result)) => Found::Result(result.clone()),
        None => Found::NoOverload,
    }
}

/// The full name of a call such as `math.abs(x)`, which is not one of `abs` on a variable.
pub(crate) fn namespaced(call: &CallExpr) -> Option<String> {
    let Expr::Ident(space) = &call.target.as_ref()?.expr else { return None };
    let name = format!("{space}.{}", call.func_name);
    NAMESPACED.iter().any(|(known, _)| *known == name).then_some(name)
}

/// True for the (full) name of a function.
pub(crate) fn is_function(name: &str) -> bool {
    NAMESPACED.iter().any(|(known, _)| *known == name)
        || FUNCTIONS.iter().any(|(known, ..)| *known == name)
}

/// True for a function whose result takes no room worth counting.
pub(crate) fn is_small(name: &str) -> bool {
    let is_small = |ty: &Type| *ty == Type::Bool || ty.is_number();
    NAMESPACED.iter().all(|(known, result)| *known != name || is_small(result))
        && FUNCTIONS.iter().all(|(known, .., result)| *known != name || is_small(result))
}

/// True for the name of a type.
pub(crate) fn is_type_name(name: &str) -> bool {
    TYPES.contains(&name)
}
