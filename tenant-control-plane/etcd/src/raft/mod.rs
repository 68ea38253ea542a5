//! Consensus, by openraft. Nothing outside this module names it.

pub mod codec;
pub mod consensus;
pub mod log_store;
pub mod network;
pub mod peer;
pub mod state_machine;
pub mod types;

pub use codec::first_membership;
pub use consensus::{Consensus, Timing};
