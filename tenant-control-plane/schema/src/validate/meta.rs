//! `metadata` of every kind.
use super::Faults;
use machinery::GroupVersionKind;
use serde_json::Value;
pub(super) fn create(_gvk: &GroupVersionKind, _object: &Value, _faults: &mut Faults) {}
pub(super) fn update(_gvk: &GroupVersionKind, _new: &Value, _old: &Value, _faults: &mut Faults) {}
