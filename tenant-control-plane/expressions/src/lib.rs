//! CEL expressions, as the Kubernetes API uses them: match conditions of webhooks, admission
//! policies.
//!
//! ```text
//!  text ─► Program::compile ─► parser (crate `cel`) ─► check: names, types, result
//!                                                        │
//!  objects as JSON ─► Inputs ─► Program::evaluate ─► interpreter (crate `cel`), metered ─► Outcome
//! ```
//!
//! The crate `cel` parses and interprets. Here is what Kubernetes adds: expressions are checked
//! before they are stored ([`types`]), with the texts that clients look for; they have its function
//! libraries ([`library`](self)); and they cannot take more than a bounded amount of time and
//! memory ([`budget`](self)).
//!
//! Pure functions: nothing here knows of requests or storage.
//!
//! Source: Kubernetes documentation, "Common Expression Language in Kubernetes"; KEP-3488.

mod budget;
mod check;
mod inputs;
mod library;
mod meter;
mod program;
pub mod types;

pub use inputs::{CONDITIONS_BUDGET, Evaluated, Inputs, POLICY_BUDGET};
pub use library::authz::{Access, Authorizer};
pub use program::{Outcome, Program};
pub use types::Type;
