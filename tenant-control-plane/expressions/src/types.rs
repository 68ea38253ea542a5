//! What is known of a value before it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything: decided when the expression is evaluated.
    Dyn,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    UInt,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `null`
    Null,
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// A list of one type.
    List(Arc<Type>),
    /// A map from strings to one type.
    Map(Arc<Type>),
    /// An object with fields that are known.
    Object(Arc<Object>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Named(&'static str),
}

/// An object type.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Name, in messages.
    pub name: String,
    /// Fields.
    pub fields: BTreeMap<String, Type>,
}

impl Type {
    /// Of the variable `authorizer`.
    pub const AUTHORIZER: Self = Type::Named(crate::library::authz::AUTHORIZER);

    /// A list of anything.
    pub fn list() -> Self {
        Type::List(Arc::new(Type::Dyn))
    }

    /// True for a type whose values equal only values of the same type.
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Type::Bool | Type::Int | Type::UInt | Type::Double | Type::String | Type::Bytes
        )
    }

    /// True for `int`, `uint` and `double`.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::UInt | Type::Double)
    }

    /// True when a value of this type may stand where `wanted` is expected.
    pub fn fits(&self, wanted: &Type) -> bool {
        *self == Type::Dyn || *wanted == Type::Dyn || self == wanted
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::UInt => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("google.protobuf.Duration"),
            Type::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(value) => write!(f, "map(string, {value})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Named(name) => f.write_str(name),
        }
    }
}
