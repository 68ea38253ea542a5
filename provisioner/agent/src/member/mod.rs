//! Members: the processes of tenants' control planes.

pub mod health;
pub mod log;
pub mod setup;
pub mod supervisor;
