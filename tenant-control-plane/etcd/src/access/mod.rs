//! Users, roles and what they may do.
//!
//! [`store::Store`] is part of the replicated state: every member has the same users and roles
//! after the same log entry, and decides alike. Who a request comes from is found out where it
//! comes in ([`token`], [`jwt`], or the common name of the client's certificate) and travels with the
//! proposal; whether it is allowed is decided when it is applied ([`check`]), so that no change of
//! roles can slip in between. Reads are decided where they are read.
//!
//! Passwords are hashed where they come in and never enter the log.

pub mod check;
pub mod grants;
pub mod jwt;
pub mod store;
pub mod token;

#[cfg(test)]
mod tests;

/// The user that is allowed everything, and the role that makes it so.
pub const ROOT: &str = "root";
