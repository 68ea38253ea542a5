//! Wire types and rules that every Kubernetes component shares: `Status`, the parsed request,
//! the user behind it, names, quantities, selectors, and what objects count for in quotas.
//!
//! No input or output, no async, no clocks: a crate of any layer may depend on it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod amounts;
pub mod json;
pub mod names;
pub mod quantity;
pub mod quota;
pub mod request;
pub mod selector;
pub mod source;
pub mod status;
pub mod user;

pub use quantity::Quantity;
pub use request::{GroupResource, GroupVersionKind, GroupVersionResource, RequestInfo};
pub use selector::{FieldSelector, LabelSelector};
pub use source::ObjectSource;
pub use status::{Cause, Reason, Status};
pub use user::UserInfo;
