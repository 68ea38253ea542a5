//! Admission: what an authorized write must still satisfy, and what is filled in before it is
//! stored.
//!
//! ```text
//! authorized request ─► mutate: each plugin in order changes the object
//!                    ─► (the API server validates the object)
//!                    ─► validate: each plugin in order may refuse ─► storage
//! ```
//!
//! Plugins are pure: they see the request's attributes, the object, the stored object and the API
//! server's cache, and answer at once. They never write other objects, never wait, and never call
//! out. Of admission webhooks only the pure half is here: whom they concern ([`rule`],
//! [`webhook`]), what they are asked and what they may answer.
//!
//! Invariants: a plugin that does not concern the request's resource does nothing; the validating
//! half never changes the object; refusals carry upstream's texts, because clients match on them.

mod attributes;
mod chain;
mod object;
mod plugins;
pub mod rule;
pub mod webhook;

pub use attributes::{AccessCheck, Attributes, Operation};
pub use chain::{Chain, Charge, UnknownPlugin};
pub use plugins::{default_plugins, known_plugins};
