//! Conversions between the versions of a kind that is served in several.

pub mod autoscaling;
pub mod events;
pub mod webhook;
