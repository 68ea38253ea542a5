//! What subjects share that talk to an API server at length: a client that costs little, bodies that
//! cost nothing, and a control plane of its own.
//!
//! The client's processor also carries the store, so what the client does for a request is kept small:
//! bodies are copied from a stencil, answers are not parsed, long ones are not even kept.

mod client;
mod plane;
mod stencil;

pub use client::{Body, Call, Client, Identity, Media, next_chunk};
pub use plane::{Plane, Role};
pub use stencil::Stencil;
