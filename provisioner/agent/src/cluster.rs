//! One cluster on this host: its VPC, members, egress, and what happens inside its API.
//!
//! Everything converges from the desired state; when that is absent, everything is removed, the
//! directory last, so that an interrupted removal goes on after a restart.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use provisioner_api::pb;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    board::Board,
    cgroup,
    config::AgentConfig,
    member::{
        setup::{self, ClusterDir},
        supervisor::{Supervisor, Wanted},
    },
    tenant::{bootstrap, client::TenantClient, nodes},
    vpc::{egress::Egress, listeners::Listeners, namespace, range::Ranges},
    worker::table::WorkerTable,
};

const EVERY: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// A cluster on this host.
#[derive(Debug)]
pub struct ClusterTask {
    config: Arc<AgentConfig>,
    board: Board,
    workers: WorkerTable,
    id: String,
    members: BTreeMap<String, MemberTask>,
    vpc: Option<Vpc>,
    tenant: Option<Tenant>,
}

#[derive(Debug)]
struct MemberTask {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

/// The parts that live in the VPC; dropped together.
#[derive(Debug)]
struct Vpc {
    ranges: Ranges,
    sockets: namespace::SocketMaker,
    listeners: Listeners,
    egress: Egress,
}

/// The parts that talk to the tenant's API; ended together.
#[derive(Debug)]
struct Tenant {
    desired: watch::Sender<Arc<pb::Bootstrap>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl ClusterTask {
    /// A task for a cluster that is desired, or of which something is left.
    pub fn new(config: Arc<AgentConfig>, board: Board, workers: WorkerTable, id: &str) -> Self {
        // Listed from the start: what is not listed counts as gone.
        board.cluster(id, |_| {});
        Self {
            config,
            board,
            workers,
            id: id.to_owned(),
            members: BTreeMap::new(),
            vpc: None,
            tenant: None,
        }
    }

    /// Runs until the cluster is not desired and nothing of it is left.
    pub async fn run(mut self, mut desired: watch::Receiver<Option<Arc<pb::Cluster>>>) {
        loop {
            let cluster = desired.borrow_and_update().clone();
            let result = match &cluster {
                Some(cluster) => self.converge(cluster).await,
                None => match self.remove(&desired).await {
                    Ok(true) => {
                        self.board.cluster_gone(&self.id);
                        tracing::info!(cluster.id = self.id, "cluster is gone from this host");
                        return;
                    }
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            let message = result.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
            if !message.is_empty() {
                tracing::warn!(
                    cluster.id = self.id,
                    message,
                    "cluster cannot be brought about yet"
                );
            }
            let removing = cluster.is_none();
            self.board.cluster(&self.id, |state| {
                state.removing = removing;
                state.vpc_message = message;
            });
            let pause = if result.is_err() || removing { RETRY } else { EVERY };
            let _ = tokio::time::timeout(pause, desired.changed()).await;
        }
    }

    async fn converge(&mut self, cluster: &pb::Cluster) -> anyhow::Result<()> {
        let clusters = self.config.clusters_dir();
        let dir = ClusterDir::ensure(&clusters, &self.id, self.config.first_uid)?;
        let vpc = cluster.vpc.as_ref().context("a cluster without a VPC")?;
        // The egress socket's directory exists; members may start while the VPC is made.
        self.converge_members(cluster, &dir);
        self.converge_vpc(vpc, &dir).await?;
        self.board.cluster(&self.id, |state| state.vpc_ready = true);
        self.converge_tenant(cluster.bootstrap.as_ref(), Ranges::parse(vpc)?)
    }

    fn converge_members(&mut self, cluster: &pb::Cluster, dir: &ClusterDir) {
        self.members.retain(|_, member| !member.task.is_finished());
        let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
        for member in &cluster.members {
            wanted.insert(&member.name, Wanted::Run(Arc::new(member.clone())));
        }
        // What an earlier agent left counts as running until it is gone.
        for name in self.leftover_members(dir) {
            if !wanted.contains_key(name.as_str()) && !self.members.contains_key(&name) {
                self.start_member(&name, dir, Wanted::Gone { at_once: false });
            }
        }
        for (name, member) in &self.members {
            let now = wanted.remove(name.as_str()).unwrap_or(Wanted::Gone { at_once: false });
            member.wanted.send_if_modified(|old| {
                let changed = *old != now;
                *old = now;
                changed
            });
        }
        for (name, wanted) in wanted {
            self.start_member(name, dir, wanted);
        }
    }

    fn leftover_members(&self, dir: &ClusterDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.root.join("members")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| setup::check_name(name).is_ok())
            .collect()
    }

    fn start_member(&mut self, name: &str, dir: &ClusterDir, wanted: Wanted) {
        let supervisor = Supervisor {
            config: Arc::clone(&self.config),
            board: self.board.clone(),
            cluster: self.id.clone(),
            dir: dir.clone(),
            name: name.to_owned(),
        };
        let (sender, receiver) = watch::channel(wanted);
        let task = tokio::spawn(supervisor.run(receiver));
        self.members.insert(name.to_owned(), MemberTask { wanted: sender, task });
    }

    async fn converge_vpc(&mut self, vpc: &pb::Vpc, dir: &ClusterDir) -> anyhow::Result<()> {
        let ranges = Ranges::parse(vpc)?;
        let usable = self.vpc.as_ref().is_some_and(|v| v.ranges == ranges && v.egress.runs());
        if !usable {
            self.vpc = None;
            namespace::ensure(&self.id).await?;
            let sockets = namespace::SocketMaker::enter(&self.id).await?;
            let egress = Egress::start(&dir.egress(), dir.uid, ranges, sockets.clone())?;
            self.vpc = Some(Vpc { ranges, sockets, listeners: Listeners::default(), egress });
        }
        let Some(running) = &mut self.vpc else { return Ok(()) };
        let prefix_len = ranges.vpc.prefix_len();
        running.listeners.converge(&self.id, prefix_len, &vpc.listeners, &running.sockets).await
    }

    fn converge_tenant(
        &mut self,
        bootstrap: Option<&pb::Bootstrap>,
        ranges: Ranges,
    ) -> anyhow::Result<()> {
        let Some(bootstrap) = bootstrap else {
            self.tenant = None;
            return Ok(());
        };
        let bootstrap = Arc::new(bootstrap.clone());
        if let Some(tenant) = &self.tenant {
            let now = Arc::clone(&*tenant.desired.borrow());
            let same_client = now.api_ports == bootstrap.api_ports
                && now.ca_pem == bootstrap.ca_pem
                && now.admin_cert_pem == bootstrap.admin_cert_pem;
            if same_client {
                tenant.desired.send_if_modified(|old| {
                    let changed = *old != bootstrap;
                    *old = bootstrap;
                    changed
                });
                return Ok(());
            }
        }
        let client = Arc::new(TenantClient::new(&bootstrap)?);
        let (desired, receiver) = watch::channel(bootstrap);
        let (id, board) = (self.id.clone(), self.board.clone());
        let keep = bootstrap::keep(id.clone(), Arc::clone(&client), receiver, board.clone());
        let watch = nodes::watch(id, client, ranges, board);
        self.tenant = Some(Tenant { desired, tasks: [tokio::spawn(keep), tokio::spawn(watch)] });
        Ok(())
    }

    /// Removes everything. True when nothing is left, false when it is desired again.
    async fn remove(
        &mut self,
        desired: &watch::Receiver<Option<Arc<pb::Cluster>>>,
    ) -> anyhow::Result<bool> {
        let since = Instant::now();
        self.board.cluster(&self.id, |state| {
            state.removing = true;
            state.vpc_ready = false;
        });
        self.tenant = None;
        let root = self.config.clusters_dir().join(&self.id);
        if root.exists() {
            let dir =
                ClusterDir::ensure(&self.config.clusters_dir(), &self.id, self.config.first_uid)?;
            self.remove_members(&dir).await;
        }
        loop {
            if desired.borrow().is_some() {
                return Ok(false);
            }
            match self.workers.none_left(&self.id, &root.join("workers"), since) {
                Ok(()) => break,
                Err(waiting) => {
                    self.board.cluster(&self.id, |state| state.vpc_message = waiting);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.vpc = None;
        while !cgroup::remove(&self.id).context("control groups")? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        namespace::remove(&self.id).await?;
        crate::durable::remove_tree(&root).context("files")?;
        Ok(true)
    }

    async fn remove_members(&mut self, dir: &ClusterDir) {
        let gone = Wanted::Gone { at_once: true };
        for name in self.leftover_members(dir) {
            if !self.members.contains_key(&name) {
                self.start_member(&name, dir, gone.clone());
            }
        }
        for member in self.members.values() {
            member.wanted.send_replace(gone.clone());
        }
        for (_, member) in std::mem::take(&mut self.members) {
            // A supervisor returns when its member is gone.
            let _ = member.task.await;
        }
    }
}
