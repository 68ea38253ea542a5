//! Cluster DNS: names of Services and pods, as the Kubernetes DNS specification (1.1.0) has them.
//!
//! It watches Services and EndpointSlices and answers from that cache: [`zone`] turns a question
//! into an answer and is pure, [`handler`] puts it on the wire through hickory. Names outside the
//! cluster's domain go to the resolvers of the node, if it has any.
//!
//! It never writes to the API, never caches what it forwards, and never answers before its caches
//! hold a complete list.

pub mod flags;
pub mod forward;
pub mod handler;
pub mod run;
pub mod zone;
