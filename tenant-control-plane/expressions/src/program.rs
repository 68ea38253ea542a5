//! An expression: compiled when it is stored, evaluated for each request.

use std::sync::{Arc, LazyLock};

use cel::common::ast::{IdedExpr, SourceInfo};
use cel::{Context, Env, ExecutionError, Value};

use crate::inputs::{Evaluated, Inputs, to_json};
use crate::meter::{depth, may_take_long, meter};
use crate::types::Type;
use crate::{budget, check, library};

/// Longest expression, in bytes.
const LONGEST: usize = 10 * 1024;
/// Deepest expression, in parts of parts: checking and evaluating it goes as deep.
const DEEPEST: usize = 128;
/// Stack for parsing, in bytes: how deep an expression is shows when it is parsed. The longest
/// expression may be half as deep as it is long.
const PARSER_STACK: usize = 64 * 1024 * 1024;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(library::environment()));

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    source: Arc<str>,
    expression: Arc<IdedExpr>,
    result: Type,
    may_take_long: bool,
}

/// What an expression evaluated to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A value that JSON has too.
    Json(serde_json::Value),
    /// Some other value, by the name of its type.
    Other(String),
}

impl Program {
    /// Compiles an expression over variables of these types, whose result must fit one of
    /// `wanted`.
    ///
    /// # Errors
    /// What is wrong with it, as upstream says it after `compilation failed: `.
    pub fn compile(
        source: &str,
        variables: &[(&str, Type)],
        wanted: &[Type],
    ) -> Result<Self, String> {
        let (mut expression, info) = parse(source)?;
        let (result, faults) = check::check(&expression, variables);
        if !faults.is_empty() {
            return Err(faults.iter().map(|f| shown(f, &info)).collect::<Vec<_>>().join("\n"));
        }
        if !wanted.iter().any(|wanted| result.fits(wanted)) {
            let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            return Err(match wanted.as_slice() {
                [one] => format!("must evaluate to {one}"),
                many => format!("must evaluate to one of: [{}]", many.join(" ")),
            });
        }
        meter(&mut expression);
        let may_take_long = may_take_long(&expression);
        let expression = Arc::new(expression);
        Ok(Self { source: source.into(), expression, result, may_take_long })
    }

    /// What is wrong with an expression when its variables have these types; empty when nothing
    /// is. For warnings about expressions that compile without types.
    pub fn type_faults(source: &str, variables: &[(&str, Type)]) -> String {
        match parse(source) {
            Err(fault) => fault,
            Ok((expression, info)) => {
                let (_, faults) = check::check(&expression, variables);
                faults.iter().map(|f| shown(f, &info)).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// True when evaluating it may take longer than a thread that serves others should spend.
    pub fn may_take_long(&self) -> bool {
        self.may_take_long
    }

    /// What it evaluates to, as far as that is known.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Evaluates the expression.
    ///
    /// # Errors
    /// Why it has no value, as upstream says it.
    pub fn evaluate(&self, inputs: &Inputs<'_>) -> Result<Outcome, String> {
        let Evaluated(value) = self.value(inputs)?;
        Ok(match to_json(&value) {
            Some(json) => Outcome::Json(json),
            None => Outcome::Other(value.type_of().to_string()),
        })
    }

    /// Evaluates an expression whose value other expressions use.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn value(&self, inputs: &Inputs<'_>) -> Result<Evaluated, String> {
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.set_variable_resolver(inputs);
        budget::charge(&mut context, &inputs.budget).map_err(|e| e.to_string())?;
        inputs.budget.begin();
        let value = Value::resolve(&self.expression, &context);
        if let Some(why) = inputs.budget.exceeded() {
            return Err(why.to_owned());
        }
        value.map(Evaluated).map_err(|e| error_text(&e))
    }

    /// Evaluates an expression whose result decides something.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when the result is not a bool.
    pub fn holds(&self, inputs: &Inputs<'_>) -> Result<bool, String> {
        match self.evaluate(inputs)? {
            Outcome::Json(serde_json::Value::Bool(holds)) => Ok(holds),
            _ => Err("must evaluate to bool".to_owned()),
        }
    }
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), String> {
    if source.len() > LONGEST {
        return Err(format!("expression of {} bytes exceeds {LONGEST}", source.len()));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parsing = thread.spawn_scoped(scope, || parse_here(source));
        let parsing = parsing.map_err(|e| format!("cannot be parsed now: {e}"))?;
        parsing.join().unwrap_or_else(|_| Err("cannot be parsed".to_owned()))
    })
}

fn parse_here(source: &str) -> Result<(IdedExpr, SourceInfo), String> {
    let parser = ENVIRONMENT.parser().enable_ident_escape_syntax(true);
    let parsed = parser.parse_with_source_info(source).map_err(|errors| errors.to_string())?;
    match depth(&parsed.0) {
        ..=DEEPEST => Ok(parsed),
        _ => Err(format!("ERROR: <input>:1:1: expression recursion limit exceeded: {DEEPEST}")),
    }
}

fn error_text(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchOverload(_) | ExecutionError::ValuesNotComparable(..) => {
            "no such overload".to_owned()
        }
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::IndexOutOfBounds(index) => match to_json(index) {
            Some(index) => format!("index out of bounds: {index}"),
            None => "index out of bounds".to_owned(),
        },
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        other => other.to_string(),
    }
}

/// A fault with its place, in the notation of CEL's compilers.
fn shown(fault: &check::Fault, info: &SourceInfo) -> String {
    let start = info.offset_for(fault.at).map_or(0, |(start, _)| start as usize);
    let before = &info.source[..floor(&info.source, start)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let text = info.source.split('\n').nth(line - 1).unwrap_or_default();
    format!(
        "ERROR: <input>:{line}:{}: {}\n | {text}\n | {}^",
        column + 1,
        fault.text,
        ".".repeat(column)
    )
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
