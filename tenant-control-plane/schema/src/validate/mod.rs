//! Rules of the API that types alone cannot express, with upstream's texts.

mod meta;

use machinery::{Cause, GroupVersionKind};
use serde_json::Value;

use crate::table::Schema;

impl Schema {
    /// What is wrong with an object that is to be created, after defaulting. Empty when nothing is.
    pub fn validate_create(&self, gvk: &GroupVersionKind, object: &Value) -> Vec<Cause> {
        let mut faults = Faults::default();
        meta::create(gvk, object, &mut faults);
        faults.found
    }

    /// What is wrong with a change from `old` to `new`, both after defaulting.
    pub fn validate_update(&self, gvk: &GroupVersionKind, new: &Value, old: &Value) -> Vec<Cause> {
        let mut faults = Faults::default();
        meta::update(gvk, new, old, &mut faults);
        faults.found
    }
}

/// Findings, in the order in which they were made.
#[derive(Default)]
pub(crate) struct Faults {
    found: Vec<Cause>,
}
