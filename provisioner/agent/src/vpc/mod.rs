//! A cluster's network namespace on this host, and the only ways in and out of it.

pub mod egress;
pub mod listeners;
pub mod namespace;
pub mod range;
