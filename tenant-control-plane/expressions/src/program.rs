//! An expression: compiled when it is stored, evaluated for each request.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, SourceInfo, operators,
};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, FunctionContext, Value};

use crate::check;
use crate::inputs::{Evaluated, Inputs, to_json};
use crate::library;
use crate::types::Type;

/// Most rounds of all loops of one evaluation together.
const MAX_ROUNDS: i64 = 1_000_000;
/// Longest expression, in bytes.
const LONGEST: usize = 10 * 1024;
/// Counts the rounds. No expression can spell this name.
const TICK: &str = "@tick";

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(library::environment()));

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Program {
    source: Arc<str>,
    expression: Arc<IdedExpr>,
    result: Type,
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
        Ok(Self { source: source.into(), expression: Arc::new(expression), result })
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
        context.add_function(TICK, ticker()).map_err(|e| e.to_string())?;
        Value::resolve(&self.expression, &context).map(Evaluated).map_err(|e| error_text(&e))
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

type Function = Box<
    dyn for<'context, 'call> Fn(
            &mut FunctionContext<'context, 'call>,
        ) -> Result<CowVal<'context, 'call>, ExecutionError>
        + Send
        + Sync,
>;

/// Hands its argument back, so many times and no more.
fn ticker() -> Function {
    let rounds = AtomicI64::new(0);
    Box::new(move |context| match context.args.pop() {
        Some(value) if rounds.fetch_add(1, Ordering::Relaxed) < MAX_ROUNDS => Ok(value),
        _ => Err(ExecutionError::function_error(
            TICK,
            "operation cancelled: actual cost limit exceeded",
        )),
    })
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), String> {
    if source.len() > LONGEST {
        return Err(format!("expression of {} bytes exceeds {LONGEST}", source.len()));
    }
    let parser = ENVIRONMENT.parser().enable_ident_escape_syntax(true);
    parser.parse_with_source_info(source).map_err(|errors| errors.to_string())
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

/// Lets every loop count its rounds.
fn meter(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Comprehension(comprehension) => meter_loop(comprehension),
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| meter(target));
            call.args.iter_mut().for_each(meter);
        }
        Expr::Select(select) => meter(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(meter),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Struct(object) => {
            object.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr));
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn meter_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => meter(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            meter(&mut entry.key);
            meter(&mut entry.value);
        }
    }
}

fn meter_loop(comprehension: &mut ComprehensionExpr) {
    for part in [
        &mut comprehension.iter_range,
        &mut comprehension.accu_init,
        &mut comprehension.loop_cond,
        &mut comprehension.loop_step,
        &mut comprehension.result,
    ] {
        meter(part);
    }
    // `map` and `filter` are recognised by their constant condition, and then run in place: what
    // they evaluate in each round is wrapped instead.
    let is_plain = matches!(comprehension.loop_cond.expr, Expr::Literal(_));
    let wrapped = match &mut comprehension.loop_step.expr {
        Expr::Call(step) if is_plain && step.func_name == operators::CONDITIONAL => {
            step.args.first_mut()
        }
        Expr::Call(step) if is_plain => match step.args.get_mut(1).map(|added| &mut added.expr) {
            Some(Expr::List(list)) => list.elements.first_mut(),
            _ => None,
        },
        _ => None,
    };
    let wrapped = wrapped.unwrap_or(&mut comprehension.loop_cond);
    let inner = std::mem::take(wrapped);
    let id = inner.id;
    let call = CallExpr { func_name: TICK.to_owned(), target: None, args: vec![inner] };
    *wrapped = IdedExpr { id, expr: Expr::Call(call) };
}
