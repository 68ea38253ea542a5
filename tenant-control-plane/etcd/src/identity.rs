//! Who this member is: decided at its first start, kept ever after.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::config::{Config, cluster_id};
use crate::pb::IdentifyRequest;
use crate::raft::network::{Dial, Peers};
use crate::raft::types::PeerNode;
use crate::storage::disk::Disk;

const FILE: &str = "identity.json";
/// How long a joining member asks who it is.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long one answer may take, and how long it waits before it asks again.
const JOIN_RETRY: Duration = Duration::from_secs(1);

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

/// A joining member learns its id from those who added it. Some of them may not have heard of it yet,
/// or be away.
async fn ask_members(config: &Config, dial: Dial) -> anyhow::Result<Identity> {
    let peers = Peers::new(0, 0, dial);
    let others = config.initial_cluster.iter().filter(|(name, _)| **name != config.name);
    let others: Vec<_> = others.map(|(name, urls)| (name, node_at(urls))).collect();
    let until = Instant::now() + JOIN_PATIENCE;
    loop {
        let mut answers = Vec::new();
        for (name, node) in &others {
            match ask(config, &peers, node).await {
                Ok(Some(identity)) => return Ok(identity),
                Ok(None) => answers.push(format!("{name} does not know this member")),
                Err(e) => answers.push(format!("{name}: {e}")),
            }
        }
        ensure!(
            Instant::now() < until,
            "no member of --initial-cluster knows a member with peer URL {:?}: add it first ({})",
            config.advertise_peer_urls,
            answers.join("; ")
        );
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

fn node_at(urls: &[String]) -> PeerNode {
    PeerNode { peer_urls: urls.to_vec() }
}

async fn ask(config: &Config, peers: &Peers, node: &PeerNode) -> anyhow::Result<Option<Identity>> {
    let mut client = peers.client(0, node)?;
    let request = IdentifyRequest { peer_urls: config.advertise_peer_urls.clone() };
    let answer = tokio::time::timeout(JOIN_RETRY, client.identify(request)).await??.into_inner();
    let identity = Identity { member_id: answer.member_id, cluster_id: answer.cluster_id };
    Ok((answer.member_id != 0).then_some(identity))
}
