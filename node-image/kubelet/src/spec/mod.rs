//! What a pod's spec asks for, as pure functions of the spec: no clock, no files, no sockets.

pub mod containers;
pub mod dns;
pub mod downward;
pub mod env;
pub mod hosts;
pub mod resize;
pub mod resources;
pub mod security;
