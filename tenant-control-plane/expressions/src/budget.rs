//! What evaluating may cost: time and memory in one unit, spent before they are used where that is
//! known, and right after otherwise.
//!
//! A unit is about a step of the interpreter, or ten bytes of text. The limits and most prices are
//! upstream's; reading a value counts all that is in it, because here it may be copied.
//!
//! Source: Kubernetes documentation, "Common Expression Language in Kubernetes: Resource
//! constraints"; upstream's package `apiserver/pkg/apis/cel`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, DeclarationError, ExecutionError, FunctionContext};
use regex::Regex;

use crate::library::heavy;

/// What one evaluation may cost.
const PER_CALL: i64 = 1_000_000;
/// Deepest value, in values of values: copying and dropping it goes as deep.
const DEEPEST: usize = 256;
/// More than any budget.
const TOO_MUCH: i64 = i64::MAX / 64;
/// What compiling a regular expression costs.
const COMPILING: i64 = 5_000;

/// Passes a value on and charges what looking at its outside costs. No expression can spell this
/// name or the next ones.
pub(crate) const GLANCES: &str = "@glances";
/// Passes a value on that is read, and maybe copied, as a whole.
pub(crate) const READS: &str = "@reads";
/// Passes a value on that has been made.
pub(crate) const MAKES: &str = "@makes";
/// Calls a function whose cost depends on all of its arguments: see [`heavy`].
pub(crate) const CALLS: &str = "@calls";

/// What may be spent on the expressions that share it.
#[derive(Debug)]
pub(crate) struct Budget {
    total: AtomicI64,
    call: AtomicI64,
    patterns: Mutex<HashMap<String, Regex>>,
}

impl Budget {
    pub(crate) fn new(total: i64) -> Arc<Self> {
        Arc::new(Self {
            total: AtomicI64::new(total),
            call: AtomicI64::new(PER_CALL),
            patterns: Mutex::default(),
        })
    }

    /// A new evaluation begins.
    pub(crate) fn begin(&self) {
        self.call.store(PER_CALL, Ordering::Relaxed);
    }

    /// What may still be spent; negative when it was too much.
    fn left(&self) -> i64 {
        self.total.load(Ordering::Relaxed).min(self.call.load(Ordering::Relaxed))
    }

    /// Pays.
    ///
    /// # Errors
    /// When there is not enough left. Nothing can be paid from then on.
    pub(crate) fn spend(&self, cost: i64) -> Result<(), ExecutionError> {
        let left = self.left();
        if left >= 0 {
            // What is too much is not done, and only said.
            let paid = cost.min(left + 1);
            self.total.fetch_sub(paid, Ordering::Relaxed);
            self.call.fetch_sub(paid, Ordering::Relaxed);
        }
        match self.exceeded() {
            None => Ok(()),
            Some(why) => Err(ExecutionError::function_error("cost", why)),
        }
    }

    /// Why nothing more can be paid, in upstream's words. An expression that caught the error has
    /// no value all the same.
    pub(crate) fn exceeded(&self) -> Option<&'static str> {
        if self.total.load(Ordering::Relaxed) < 0 {
            return Some(
                "validation failed due to running out of cost budget, no further validation rules \
                 will be run",
            );
        }
        let exceeded = self.call.load(Ordering::Relaxed) < 0;
        exceeded.then_some("operation cancelled: actual cost limit exceeded")
    }

    /// A compiled pattern.
    pub(crate) fn pattern(&self, source: &str) -> Result<Regex, ExecutionError> {
        let mut patterns = self.patterns.lock().expect("no panic while locked");
        if let Some(known) = patterns.get(source) {
            return Ok(known.clone());
        }
        self.spend(COMPILING)?;
        let compiled = Regex::new(source).map_err(|e| {
            ExecutionError::function_error("matches", format!("'{source}' not a valid regex:\n{e}"))
        })?;
        patterns.insert(source.to_owned(), compiled.clone());
        Ok(compiled)
    }
}

/// How big a value is with all that is in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// Values in it, itself included.
    pub(crate) nodes: i64,
    /// Bytes of its texts.
    pub(crate) bytes: i64,
}

impl Size {
    /// Of a value. One that is too big to be paid for is not counted to its end.
    pub(crate) fn of(value: &dyn Val, budget: &Budget) -> Self {
        let mut size = Self::default();
        size.add(value, budget.left().saturating_mul(4), DEEPEST);
        size
    }

    /// Steps to walk over it.
    pub(crate) fn units(self) -> i64 {
        self.nodes + self.bytes / 10
    }

    fn add(&mut self, value: &dyn Val, most: i64, levels: usize) {
        self.nodes += 1;
        let Some(levels) = levels.checked_sub(1) else {
            self.bytes = TOO_MUCH;
            return;
        };
        if self.units() > most {
            return;
        }
        if let Some(list) = value.downcast_ref::<CelList>() {
            for item in list.inner() {
                if self.units() > most {
                    return;
                }
                self.add(item.as_ref(), most, levels);
            }
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            for (key, value) in map.inner() {
                if self.units() > most {
                    return;
                }
                self.add(key.inner(), most, levels);
                self.add(value.as_ref(), most, levels);
            }
        } else if let Some(value) = value.downcast_ref::<CelOptional>() {
            value.inner().into_iter().for_each(|value| self.add(value, most, levels));
        } else {
            self.bytes += length(value);
        }
    }
}

fn length(value: &dyn Val) -> i64 {
    let text = value.downcast_ref::<CelString>().map(|text| text.inner().len());
    let length = text.or_else(|| value.downcast_ref::<CelBytes>().map(|b| b.inner().len()));
    length.map_or(0, |length| i64::try_from(length).unwrap_or(i64::MAX))
}

pub(crate) type Function = Box<
    dyn for<'context, 'call> Fn(
            &mut FunctionContext<'context, 'call>,
        ) -> Result<CowVal<'context, 'call>, ExecutionError>
        + Send
        + Sync,
>;

/// Gives a context the functions that charge a budget.
pub(crate) fn charge(
    context: &mut Context<'_, '_>,
    budget: &Arc<Budget>,
) -> Result<(), DeclarationError> {
    context.add_function(GLANCES, passes(budget, |value, _| length(value) / 10))?;
    context
        .add_function(READS, passes(budget, |value, budget| Size::of(value, budget).units() / 4))?;
    context.add_function(
        MAKES,
        passes(budget, |value, budget| {
            let size = Size::of(value, budget);
            size.units() + 2 * (size.nodes - 1)
        }),
    )?;
    context.add_function(CALLS, heavy::calls(budget))
}

/// Hands its argument back, for a price.
fn passes(budget: &Arc<Budget>, price: fn(&dyn Val, &Budget) -> i64) -> Function {
    let budget = budget.clone();
    Box::new(move |context| {
        let value =
            context.args.pop().ok_or_else(|| ExecutionError::invalid_argument_count(1, 0))?;
        budget.spend(1 + price(value.as_ref(), &budget))?;
        Ok(value)
    })
}
