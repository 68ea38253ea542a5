//! Workers of tenants, made by driver executables.

pub mod driver;
pub mod reconcile;
pub mod table;
