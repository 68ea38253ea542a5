//! Who this member is: decided at its first start, kept ever after.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, cluster_id};
use crate::pb::IdentifyRequest;
use crate::raft::network::{Dial, Peers};
use crate::raft::types::PeerNode;
use crate::storage::disk::Disk;

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
pub async fn establish(
    config: &Config,
    disk: &dyn Disk,
    dial: Dial,
    dir: &Path,
) -> anyhow::Result<Identity> {
    let path = dir.join(FILE);
    match disk.read(&path) {
        Ok(json) => {
            return serde_json::from_slice(&json).with_context(|| path.display().to_string());
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    }
    let identity = if config.existing {
        ask_members(config, dial).await?
    } else {
        let members = config.initial_members();
        Identity {
            member_id: config.member_id(&config.advertise_peer_urls),
            cluster_id: cluster_id(members.keys().copied(), &config.token),
        }
    };
    disk.create_dir(dir)?;
    disk.sync_dir(&config.data_dir)?;
    let tmp = path.with_extension("tmp");
    let file = disk.create(&tmp)?;
    file.write_at(&serde_json::to_vec(&identity)?, 0)?;
    file.sync_all()?;
    disk.rename(&tmp, &path)?;
    disk.sync_dir(dir)?;
    Ok(identity)
}

/// A joining member learns its id from those who added it.
async fn ask_members(config: &Config, dial: Dial) -> anyhow::Result<Identity> {
    let peers = Peers::new(0, 0, dial);
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
