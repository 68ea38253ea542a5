//! The region's CA: mutual TLS between the controller and the agents.
//!
//! An agent's certificate is for servers only and the controller's for clients only, so that a
//! stolen agent key cannot command other agents.

use std::net::IpAddr;

use crate::authority::{Authority, DAY_SECS, Issued, Leaf, PkiError, Usage};

/// Common name of the controller's certificate.
pub const CONTROLLER_NAME: &str = "marina:controller";

/// DNS name that every agent's certificate carries besides its addresses; clients that reach an
/// agent by an address that changes verify this.
pub const AGENT_NAME: &str = "agent.marina.internal";

const VALID_SECS: i64 = 3650 * DAY_SECS;

/// The region's authority.
#[derive(Clone, Debug)]
pub struct RegionPki {
    /// Signs agents and controllers.
    pub ca: Authority,
}

impl RegionPki {
    /// A new region. `now_unix` in seconds.
    pub fn new(now_unix: i64) -> Result<Self, PkiError> {
        Ok(Self { ca: Authority::new("marina-region", now_unix)? })
    }

    /// The controller's client certificate.
    pub fn controller(&self, now_unix: i64) -> Result<Issued, PkiError> {
        self.ca.issue(&Leaf::client(CONTROLLER_NAME, None, VALID_SECS), now_unix)
    }

    /// The server certificate of a host's agent.
    pub fn agent(&self, host: &str, ips: &[IpAddr], now_unix: i64) -> Result<Issued, PkiError> {
        let leaf = Leaf {
            common_name: &format!("marina:agent:{host}"),
            organization: None,
            dns: vec![AGENT_NAME.to_owned()],
            ips: ips.to_vec(),
            usage: Usage::Server,
            valid_secs: VALID_SECS,
        };
        self.ca.issue(&leaf, now_unix)
    }
}
