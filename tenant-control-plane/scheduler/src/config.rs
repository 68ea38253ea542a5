//! Validated configuration.

use std::path::PathBuf;

use component::leader::LeaderElectionFlags;
use component::serving::ServingFlags;

use crate::flags::Flags;

/// Everything that the scheduler needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API server and the credentials are.
    pub kubeconfig: PathBuf,
    /// Health and metrics server.
    pub serving: ServingFlags,
    /// Leader election.
    pub leader: LeaderElectionFlags,
}

impl Config {
    /// Takes what matters from the flags.
    pub fn from_flags(flags: Flags) -> Self {
        Self { kubeconfig: flags.kubeconfig, serving: flags.serving, leader: flags.leader }
    }
}
