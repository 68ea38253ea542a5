//! The container runtime interface (CRI), version 1: the only way in which the kubelet talks
//! to containerd.
//!
//! [`pb`] is generated from `proto/` (facts of the wire: names, numbers, types). [`Runtime`]
//! is the client: one lazily (re)connected channel over a Unix socket, one method per call
//! that the kubelet makes, with a deadline on each except those that wait for a person or a
//! registry. [`fake`] serves the same API in memory for the tests of whoever uses this crate.
//!
//! This crate never decides anything: no retries, no back-off, no caching. The request goes
//! next to containerd's CRI plugin, and from there to runc.

mod client;
pub mod fake;

pub use client::{Error, Result, Runtime};

/// Messages and stubs of `runtime.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("runtime.v1");
}
