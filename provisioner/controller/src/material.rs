//! Keys and certificates as they are kept in sealed rows.

use std::collections::BTreeMap;

use provisioner_pki::{Issued, authority};
use serde::{Deserialize, Serialize};

/// Name of the row with a cluster's CA set; the owner is the cluster.
pub(crate) const PKI: &str = "pki";
/// Name of the row with the agent's own certificate for a tenant; the owner is the cluster.
pub(crate) const AGENT: &str = "agent";
/// Name of the row with a member's files; the owner is the member.
pub(crate) const FILES: &str = "files";
/// Name of the row with a node's credentials; the owner is the node.
pub(crate) const NODE: &str = "node";

/// How long the agent's certificate for a tenant is valid, seconds.
pub(crate) const AGENT_VALID_SECS: i64 = 30 * authority::DAY_SECS;
/// It is renewed when it ends within this, seconds.
pub(crate) const AGENT_RENEW_SECS: i64 = 10 * authority::DAY_SECS;
/// How long a node's kube-proxy certificate is valid, seconds.
pub(crate) const NODE_VALID_SECS: i64 = 365 * authority::DAY_SECS;

/// A member's files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MemberFiles {
    /// Until when its certificates are valid, Unix seconds.
    pub until: i64,
    /// Content by file name.
    pub files: BTreeMap<String, String>,
}

impl MemberFiles {
    /// False for an API server of a release that had no certificate for extension API servers: it
    /// gets new files as if its certificates had ended.
    pub fn is_complete(&self) -> bool {
        self.has_front_proxy() || !self.files.contains_key("apiserver.crt")
    }

    /// Whether there is a certificate for extension API servers.
    pub fn has_front_proxy(&self) -> bool {
        self.files.contains_key("front-proxy-client.crt")
    }
}

/// The agent's certificate for a tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentAccess {
    /// Until when it is valid, Unix seconds.
    pub until: i64,
    /// The certificate.
    pub client: Issued,
}

/// A node's first credentials.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeCredentials {
    /// 6 characters.
    pub token_id: String,
    /// 16 characters.
    pub token_secret: String,
    /// kube-proxy's and the node agent's certificate.
    pub kube_proxy: Issued,
}

impl NodeCredentials {
    /// Makes them. Hexadecimal digits are within the tokens' alphabet (a-z0-9).
    pub fn new(kube_proxy: Issued) -> Self {
        Self {
            token_id: marina_db::ids::random_hex(3),
            token_secret: marina_db::ids::random_hex(8),
            kube_proxy,
        }
    }
}
