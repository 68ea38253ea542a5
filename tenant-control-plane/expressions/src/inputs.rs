//! Variables of an expression, from JSON.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::Value;
use cel::common::types::CelNull;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::Map;
use machinery::RequestInfo;

use crate::budget::Budget;
use crate::library::authz::{self, Authorizer};

/// What the expressions of one policy may cost for one request, as upstream has it.
pub const POLICY_BUDGET: i64 = 10_000_000;
/// What the match conditions of one policy or webhook may cost for one request.
pub const CONDITIONS_BUDGET: i64 = 2_500_000;

/// The values of variables. Each is converted when an expression first asks for it, and once.
pub struct Inputs<'a> {
    variables: Vec<(&'static str, Input<'a>)>,
    pub(crate) budget: Arc<Budget>,
}

impl Default for Inputs<'_> {
    fn default() -> Self {
        Self { variables: Vec::new(), budget: Budget::new(POLICY_BUDGET) }
    }
}

struct Input<'a> {
    given: Given<'a>,
    converted: OnceLock<Box<dyn Val>>,
}

enum Given<'a> {
    Json(&'a serde_json::Value),
    Fields(Vec<(String, Evaluated)>),
    Value(Evaluated),
}

/// A value that an expression has had, to be used in another one.
#[derive(Clone, Debug)]
pub struct Evaluated(pub(crate) Value);

impl<'a> Inputs<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    pub fn with(mut self, name: &'static str, json: &'a serde_json::Value) -> Self {
        self.set(name, Given::Json(json));
        self
    }

    /// Adds `authorizer`, and the request that `authorizer.requestResource` asks about.
    pub fn with_authorizer(mut self, authorizer: &Authorizer, request: &RequestInfo) -> Self {
        let resource = authz::request_resource(authorizer, request);
        self.set("authorizer.requestResource", Given::Value(Evaluated(resource)));
        let value = Value::Opaque(Arc::new(authorizer.clone()));
        self.set("authorizer", Given::Value(Evaluated(value)));
        self
    }

    /// Sets what all evaluations from now on together may cost; [`POLICY_BUDGET`] until then.
    pub fn set_budget(&mut self, cost: i64) {
        self.budget = Budget::new(cost);
    }

    /// Sets a variable to an object of evaluated fields.
    pub fn set_fields(&mut self, name: &'static str, fields: Vec<(String, Evaluated)>) {
        self.set(name, Given::Fields(fields));
    }

    fn set(&mut self, name: &'static str, given: Given<'a>) {
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, Input { given, converted: OnceLock::new() }));
    }
}

impl VariableResolver for Inputs<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (_, input) = self.variables.iter().find(|(name, _)| *name == variable)?;
        let value = input.converted.get_or_init(|| {
            let value = match &input.given {
                Given::Json(json) => from_json(json),
                Given::Value(value) => value.0.clone(),
                Given::Fields(fields) => {
                    let fields = fields.iter().map(|(name, value)| (name.clone(), value.0.clone()));
                    Value::Map(Map::from(fields.collect::<HashMap<_, _>>()))
                }
            };
            // What can be written in JSON or computed by an expression can be a variable.
            Box::<dyn Val>::try_from(value).unwrap_or_else(|_| Box::new(CelNull))
        });
        Some(CowVal::Borrowed(value.as_ref()))
    }
}

/// A JSON value in CEL. Whole numbers are `int`, as the API's are.
pub(crate) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => match n.as_i64() {
            Some(int) => Value::Int(int),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => {
            Value::List(items.iter().map(from_json).collect::<Vec<_>>().into())
        }
        serde_json::Value::Object(fields) => {
            let fields: HashMap<String, Value> =
                fields.iter().map(|(key, value)| (key.clone(), from_json(value))).collect();
            Value::Map(Map::from(fields))
        }
    }
}

/// A CEL value as JSON; `None` for one that has no place there (a function, a quantity).
pub(crate) fn to_json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Int(int) => (*int).into(),
        Value::UInt(uint) => (*uint).into(),
        Value::Float(float) => (*float).into(),
        Value::String(text) => text.as_str().into(),
        Value::List(items) => {
            serde_json::Value::Array(items.iter().map(to_json).collect::<Option<_>>()?)
        }
        Value::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let cel::objects::Key::String(key) = key else { return None };
                fields.insert(key.to_string(), to_json(value)?);
            }
            serde_json::Value::Object(fields)
        }
        _ => return None,
    })
}
