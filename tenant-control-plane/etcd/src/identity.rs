//! Who this member is: decided at its first start, kept ever after.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, cluster_id};
use crate::pb::IdentifyRequest;
use crate::raft::network::Peers;
use crate::raft::types::PeerNode;
use crate::storage::files::sync_dir;

const FILE: &str = "identity.json";

/// Ids of a member and its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
}

/// Reads the identity, or finds it out and keeps it.
pub async fn establish(config: &Config, dir: &Path) -> anyhow::Result<Identity> {
    let path = dir.join(FILE);
    match std::fs::read(&path) {
        Ok(json) => {
            return serde_json::from_slice(&json).with_context(|| path.display().to_string());
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    }
    let identity = if config.existing {
        ask_members(config).await?
    } else {
        let members = config.initial_members();
        Identity {
            member_id: config.member_id(&config.advertise_peer_urls),
            cluster_id: cluster_id(members.keys().copied(), &config.token),
        }
    };
    std::fs::create_dir_all(dir)?;
    sync_dir(&config.data_dir)?;
    let tmp = path.with_extension("tmp");
    let mut file = std::fs::File::create(&tmp)?;
    file.write_all(&serde_json::to_vec(&identity)?)?;
    file.sync_all()?;
    std::fs::rename(&tmp, &path)?;
    sync_dir(dir)?;
    Ok(identity)
}

/// A joining member learns its id from those who added it.
async fn ask_members(config: &Config) -> anyhow::Result<Identity> {
    let peers = Peers::new(0, 0, config.peer_client_tls.clone());
    let mut failures = Vec::new();
    for (name, urls) in &config.initial_cluster {
        if *name == config.name {
            continue;
        }
        let node = PeerNode { peer_urls: urls.clone() };
        let request = IdentifyRequest { peer_urls: config.advertise_peer_urls.clone() };
        let answer = match peers.client(0, &node) {
            Ok(mut client) => client.identify(request).await,
            Err(e) => Err(e),
        };
        match answer {
            Ok(r) => {
                let r = r.into_inner();
                ensure!(
                    r.member_id != 0,
                    "the cluster has no member with peer URL {:?}: add it first",
                    config.advertise_peer_urls
                );
                return Ok(Identity { member_id: r.member_id, cluster_id: r.cluster_id });
            }
            Err(e) => failures.push(format!("{name}: {e}")),
        }
    }
    bail!("no member of --initial-cluster answers: {failures:?}")
}
