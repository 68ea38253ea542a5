//! One member from start to stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use etcd_api::pb::etcdserverpb::AlarmType;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::Identity;
use crate::machine::Machine;
use crate::node::Node;
use crate::raft::Consensus;
use crate::raft::network::{self, Dial, Peers};
use crate::server::{Serve, Socket, client_routes, peer_routes};
use crate::storage::disk::{Disk, Host};
use crate::{background, backup, identity, threads};

/// Runs until `shutdown`, or until raft stops (which is an error).
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let dir = config.data_dir.join("member");
    make_private(&config.data_dir)?;
    let mut peer_sockets = Vec::new();
    for listen in &config.peers {
        peer_sockets.push(Socket::bind(listen, config.peer_tls.as_ref()).await?);
    }
    let mut client_sockets = Vec::new();
    for listen in &config.clients {
        client_sockets.push(Socket::bind(listen, config.client_tls.as_ref()).await?);
    }
    let mut metrics_sockets = Vec::new();
    for listen in &config.metrics {
        let tls = config.client_tls.clone().map(|mut tls| {
            tls.client_ca_pem = None;
            tls
        });
        metrics_sockets.push(Socket::bind(listen, tls.as_ref()).await?);
    }
    let dial = network::dial(config.peer_client_tls.clone());
    let member = Member::open(Arc::clone(&config), Arc::new(Host), dial).await?;
    backup::import::restored(&config, &dir, &member.machine)?;
    let node = member.start().await?;
    let stop = CancellationToken::new();
    let mut serving = tokio::task::JoinSet::new();
    for socket in peer_sockets {
        let serve = Serve::Peers(peer_routes(&node));
        serving.spawn(socket.serve(Arc::clone(&node), serve, stop.clone()));
    }
    begin(&node).await?;
    for socket in metrics_sockets {
        serving.spawn(socket.serve(Arc::clone(&node), Serve::Metrics, stop.clone()));
    }
    for socket in client_sockets {
        let serve = Serve::Clients(client_routes(&node));
        serving.spawn(socket.serve(Arc::clone(&node), serve, stop.clone()));
    }
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        why = node.consensus.wait_failure() => Some(why),
    };
    if failure.is_none() {
        hand_over(&node).await;
    }
    stop.cancel();
    serving.join_all().await;
    node.consensus.shutdown().await;
    match failure {
        Some(why) => bail!("raft has stopped: {why}"),
        None => Ok(()),
    }
}

/// A member whose data is open, and who takes no part yet.
pub struct Member {
    config: Arc<Config>,
    dial: Dial,
    id: Identity,
    /// Its state.
    pub machine: Arc<Machine>,
}

impl Member {
    /// Finds out who it is, and opens what it has.
    pub async fn open(
        config: Arc<Config>,
        disk: Arc<dyn Disk>,
        dial: Dial,
    ) -> anyhow::Result<Self> {
        let dir = config.data_dir.join("member");
        let id = identity::establish(&config, disk.as_ref(), Arc::clone(&dial), &dir).await?;
        let machine = threads::block(move || Machine::open(disk, &dir)).await??;
        Ok(Self { config, dial, id, machine })
    }

    /// Starts raft.
    pub async fn start(self) -> anyhow::Result<Arc<Node>> {
        let Self { config, dial, id, machine } = self;
        let peers = Peers::new(id.member_id, id.cluster_id, dial);
        let consensus = Consensus::start(Arc::clone(&machine), peers, config.timing).await?;
        tracing::info!(
            member.id = format_args!("{:x}", id.member_id),
            cluster.id = format_args!("{:x}", id.cluster_id),
            revision = machine.revision(),
            "started"
        );
        Ok(Node::start(config, machine, consensus))
    }
}

/// Begins the cluster, if it is a new one, and what a member does by itself. The other members
/// must be able to reach this one by now.
pub async fn begin(node: &Arc<Node>) -> anyhow::Result<()> {
    if !node.config.existing {
        let members = node.config.initial_members();
        let members = members.into_iter().map(|(id, (_, urls))| (id, urls));
        node.consensus.bootstrap(members.collect()).await?;
    }
    background::start(node);
    Ok(())
}

/// A leader that stops, or is not sound, names a successor, so that nobody waits for an election
/// timeout.
pub async fn hand_over(node: &Node) {
    let status = node.consensus.status();
    if !status.is_leader {
        return;
    }
    let (own, _) = node.consensus.ids();
    let is_sound = |id| !node.machine.has_alarm(id, AlarmType::Corrupt);
    let mut members = node.consensus.members().into_iter();
    let successor = members.find(|(id, _, learner)| *id != own && !learner && is_sound(*id));
    let Some((id, ..)) = successor else { return };
    if node.consensus.transfer(id).await.is_ok() {
        let moved = node.consensus.wait_leader(Some(own));
        let _ = tokio::time::timeout(Duration::from_secs(1), moved).await;
    }
}

fn make_private(dir: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // A directory that a power failure takes away would take the member's votes along.
    if let Some(parent) = dir.canonicalize()?.parent() {
        Host.sync_dir(parent)?;
    }
    Ok(())
}
