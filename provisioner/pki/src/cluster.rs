//! The CA set of one cluster.

use crate::authority::{Authority, Issued, Leaf, PkiError, signing_key};

/// The group whose members may do everything (Kubernetes built-in).
pub const ADMIN_GROUP: &str = "system:masters";

/// The authorities and the token-signing key of one cluster. Made once, never shared.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClusterPki {
    /// Signs the API server, its clients and the kubelets.
    pub cluster: Authority,
    /// Signs etcd's client port and its clients.
    pub etcd: Authority,
    /// Signs etcd's peer port.
    pub etcd_peer: Authority,
    /// Signs the aggregation layer's client.
    pub front_proxy: Authority,
    /// Signs ServiceAccount tokens; PKCS#8 PEM.
    pub service_account_key_pem: String,
    /// Verifies ServiceAccount tokens; SPKI PEM.
    pub service_account_pub_pem: String,
}

impl std::fmt::Debug for ClusterPki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterPki")
    }
}

impl ClusterPki {
    /// A new set for a cluster. `now_unix` in seconds.
    pub fn new(cluster_id: &str, now_unix: i64) -> Result<Self, PkiError> {
        let authority = |what| Authority::new(&format!("marina-{cluster_id}-{what}"), now_unix);
        let (service_account_key_pem, service_account_pub_pem) = signing_key("service accounts")?;
        Ok(Self {
            cluster: authority("ca")?,
            etcd: authority("etcd-ca")?,
            etcd_peer: authority("etcd-peer-ca")?,
            front_proxy: authority("front-proxy-ca")?,
            service_account_key_pem,
            service_account_pub_pem,
        })
    }

    /// For storage in a sealed row.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings serialise")
    }

    /// From a sealed row.
    pub fn from_json(json: &[u8]) -> Result<Self, PkiError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// A client certificate of the API server: `user` in `group`, for `valid_secs` from now.
    pub fn client(
        &self,
        user: &str,
        group: Option<&str>,
        valid_secs: i64,
        now_unix: i64,
    ) -> Result<Issued, PkiError> {
        self.cluster.issue(&Leaf::client(user, group, valid_secs), now_unix)
    }
}
