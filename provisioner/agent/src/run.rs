//! Starts the parts of the agent and joins them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use provisioner_api::pb;
use provisioner_gateway::{Limits, Route, Routes};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    board::Board,
    cluster::ClusterTask,
    config::AgentConfig,
    desired::DesiredStore,
    host,
    member::setup::check_name,
    server::{self, AgentService},
    worker::{driver, reconcile::Reconciler, table::WorkerTable},
};

const CAPACITY_EVERY: Duration = Duration::from_secs(30);

/// Runs the agent until the token is cancelled. Tenants go on without it.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = Arc::new(config);
    std::fs::create_dir_all(config.clusters_dir())?;
    let agent_dir = config.data_dir.join("agent");
    std::fs::create_dir_all(&agent_dir)?;
    let _only_one = lock(&agent_dir)?;
    let (desired, known) = DesiredStore::open(agent_dir.join("desired.pb"), &config.host)
        .context("the stored desired state")?;
    let desired = Arc::new(desired);
    let board = Board::new(&config.host);
    let gateway = TcpListener::bind(config.gateway_listen)
        .await
        .with_context(|| format!("--gateway-listen {}", config.gateway_listen))?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("--listen {}", config.listen))?;
    tracing::info!(host = config.host, listen = %listener.local_addr()?,
        gateway = %gateway.local_addr()?, data_dir = %config.data_dir.display(), "agent is ready");
    describe_host(&config, &board, gateway.local_addr()?);

    let routes = Routes::default();
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(provisioner_gateway::serve(gateway, routes.clone(), Limits::default()));
    parts.spawn(measure(Arc::clone(&config), board.clone()));
    let table = WorkerTable::new(board.clone());
    for (name, program) in &config.drivers {
        parts.spawn(driver::keep_running(Arc::clone(&config), name.clone(), program.clone()));
        let reconciler = Reconciler::new(Arc::clone(&config), board.clone(), table.clone(), name);
        parts.spawn(reconciler.run(desired.subscribe()));
    }
    let clusters = Clusters {
        config: Arc::clone(&config),
        board: board.clone(),
        table,
        routes,
        running: BTreeMap::new(),
    };
    parts.spawn(clusters.run(desired.subscribe(), known || config.purge));
    let work = async {
        if config.purge {
            return purge(&config, &desired, &board, shutdown).await;
        }
        let service = AgentService { desired, board };
        server::serve(&config, listener, service, shutdown).await
    };
    let done = tokio::select! {
        done = work => done,
        Some(ended) = parts.join_next() => {
            ended.context("a part of the agent failed")?;
            anyhow::bail!("a part of the agent ended")
        }
    };
    if config.purge && done.is_ok() {
        // First nobody may start them again.
        parts.shutdown().await;
        for (name, _) in &config.drivers {
            driver::end(&config, name).await.with_context(|| format!("driver {name}"))?;
        }
    }
    done
}

/// Desires nothing, and returns when nothing is left.
async fn purge(
    config: &AgentConfig,
    desired: &DesiredStore,
    board: &Board,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let revision = desired.subscribe().borrow().revision;
    let nothing = pb::HostDesired { host: config.host.clone(), revision, clusters: Vec::new() };
    desired.apply(nothing).await.context("cannot store that nothing is desired")?;
    let mut changed = board.subscribe();
    loop {
        let left: Vec<_> = board.report().clusters.into_iter().map(|cluster| cluster.id).collect();
        if left.is_empty() && leftovers(&config.clusters_dir()).is_empty() {
            tracing::info!("nothing is left on this host");
            return Ok(());
        }
        tracing::info!("still removing {}", left.join(", "));
        tokio::select! {
            _ = tokio::time::timeout(Duration::from_secs(1), changed.changed()) => {}
            () = shutdown.cancelled() => anyhow::bail!("interrupted; run it again to go on"),
        }
    }
}

/// Clusters that have a directory on this host.
fn leftovers(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .collect()
}

/// Two agents on one data directory would fight.
fn lock(dir: &std::path::Path) -> anyhow::Result<std::fs::File> {
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    // Not inherited by tenants: Rust opens files close-on-exec, and the lock ends with the agent.
    file.try_lock().map_err(|_| anyhow::anyhow!("another agent runs on this data directory"))?;
    Ok(file)
}

fn describe_host(config: &AgentConfig, board: &Board, gateway: SocketAddr) {
    let advertised = match config.gateway_advertise.as_str() {
        "" => gateway.to_string(),
        given => given.to_owned(),
    };
    board.host(|host| {
        host.gateway = advertised;
        host.capacity = Some(host::capacity(&config.data_dir, config.ports));
        let silent = "The driver has not answered yet.";
        host.drivers = config
            .drivers
            .iter()
            .map(|(name, _)| pb::DriverState {
                name: name.clone(),
                usable: false,
                message: silent.to_owned(),
            })
            .collect();
    });
}

async fn measure(config: Arc<AgentConfig>, board: Board) {
    loop {
        tokio::time::sleep(CAPACITY_EVERY).await;
        let capacity = host::capacity(&config.data_dir, config.ports);
        board.host(|host| host.capacity = Some(capacity));
    }
}

/// What a cluster's task is told to keep up.
type Wanted = watch::Sender<Option<Arc<pb::Cluster>>>;

/// The clusters on this host.
struct Clusters {
    config: Arc<AgentConfig>,
    board: Board,
    table: WorkerTable,
    routes: Routes,
    running: BTreeMap<String, (Wanted, JoinHandle<()>)>,
}

impl Clusters {
    async fn run(mut self, mut desired: watch::Receiver<Arc<pb::HostDesired>>, mut known: bool) {
        loop {
            let now = Arc::clone(&desired.borrow_and_update());
            self.converge(&now, known);
            // Only now: who sees this revision in a report also sees its clusters listed.
            self.board.host(|host| host.revision = now.revision);
            // A cluster that ended while it was desired again is started by the timer.
            let changed = tokio::time::timeout(Duration::from_secs(1), desired.changed()).await;
            known |= changed.is_ok();
        }
    }

    /// `known`: the desired state was given by a controller, now or before a restart. Without
    /// that nothing is removed.
    fn converge(&mut self, desired: &pb::HostDesired, known: bool) {
        let mut wanted: BTreeMap<&str, &pb::Cluster> = BTreeMap::new();
        for cluster in &desired.clusters {
            if check_name(&cluster.id).is_ok() {
                wanted.insert(&cluster.id, cluster);
            }
        }
        self.routes.set(wanted.values().filter_map(|cluster| route(cluster)).collect());
        self.running.retain(|_, (_, task)| !task.is_finished());
        if known {
            for id in leftovers(&self.config.clusters_dir()) {
                if !wanted.contains_key(id.as_str()) && !self.running.contains_key(&id) {
                    self.start(&id, None);
                }
            }
        }
        for (id, (sender, _)) in &self.running {
            let now = wanted.remove(id.as_str());
            sender.send_if_modified(|old| {
                let changed = old.as_deref() != now;
                if changed {
                    *old = now.map(|cluster| Arc::new(cluster.clone()));
                }
                changed
            });
        }
        for (id, cluster) in wanted {
            self.start(id, Some(Arc::new(cluster.clone())));
        }
    }

    fn start(&mut self, id: &str, cluster: Option<Arc<pb::Cluster>>) {
        let task =
            ClusterTask::new(Arc::clone(&self.config), self.board.clone(), self.table.clone(), id);
        let (sender, receiver) = watch::channel(cluster);
        let task = tokio::spawn(task.run(receiver));
        self.running.insert(id.to_owned(), (sender, task));
    }
}

fn route(cluster: &pb::Cluster) -> Option<Route> {
    let gateway = cluster.gateway.as_ref()?;
    let ports = gateway.ports.iter().filter_map(|port| u16::try_from(*port).ok());
    Some(Route {
        server_name: gateway.server_name.to_ascii_lowercase(),
        replicas: ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect(),
        max_connections: usize::try_from(gateway.max_connections).unwrap_or(usize::MAX),
    })
}
