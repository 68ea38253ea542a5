//! The kubelet.
pub mod config;
pub mod flags;
pub mod node;
pub mod pods;
pub mod probes;
pub mod runtime;
pub mod spec;
pub mod status;
pub mod volumes;
/// The version that the node reports.
pub const VERSION: &str = "v1.35.0";
