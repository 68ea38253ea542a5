//! Makes one driver's workers be what is desired.
//!
//! Each turn lists what the driver has, asks for what is missing and deletes what is too much.
//! Calls run beside the turns, one per worker at a time; the driver's calls are idempotent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{
    Phase, WorkerDriverClient, WorkerSpec, WorkerStatus,
    pb::{DeleteRequest, EnsureRequest, ListRequest, ProbeRequest},
};
use provisioner_api::{BRIDGE, netns_name, pb};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use super::{
    driver::DriverDir,
    table::{DriverView, WorkerTable},
};
use crate::{board::Board, config::AgentConfig};

const TURN: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(60);
const PROBE_AGAIN: Duration = Duration::from_secs(3);
/// So long the pods of a worker that is to go may take to end; see `tenant::drain`.
const DRAIN: Duration = Duration::from_secs(120);
/// A worker that the driver could not make is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// The reconciler of one driver.
#[derive(Debug)]
pub struct Reconciler {
    config: Arc<AgentConfig>,
    board: Board,
    table: WorkerTable,
    driver: String,
    client: WorkerDriverClient<Channel>,
    /// Workers with a call under way, and their clusters.
    calls: BTreeMap<String, String>,
    /// What the last failed call for a worker said, and when.
    failed: HashMap<String, (Instant, String)>,
    listed: Option<(Instant, Vec<WorkerStatus>)>,
    /// Workers that were wanted since the agent started.
    known: HashMap<String, Known>,
    probe_at: Instant,
}

#[derive(Debug)]
struct Known {
    /// Name of its Node.
    node: String,
    /// When it was first seen that it is wanted no more.
    unwanted: Option<Instant>,
}

/// How a call ended.
type CallEnd = (String, Result<(), String>);

impl Reconciler {
    /// For the driver of that name.
    pub fn new(config: Arc<AgentConfig>, board: Board, table: WorkerTable, driver: &str) -> Self {
        let socket = DriverDir::new(&config.data_dir, driver).socket();
        Self {
            client: driver_api::connect(&socket),
            config,
            board,
            table,
            driver: driver.to_owned(),
            calls: BTreeMap::new(),
            failed: HashMap::new(),
            listed: None,
            known: HashMap::new(),
            probe_at: Instant::now(),
        }
    }

    /// Runs for ever.
    pub async fn run(mut self, mut desired: watch::Receiver<Arc<pb::HostDesired>>) {
        let mut calls: JoinSet<CallEnd> = JoinSet::new();
        let mut board = self.board.subscribe();
        loop {
            let now_desired = Arc::clone(&desired.borrow_and_update());
            board.borrow_and_update();
            self.probe().await;
            self.list().await;
            self.turn(&now_desired, &mut calls);
            self.publish(&now_desired);
            tokio::select! {
                _ = desired.changed() => {}
                Some(ended) = calls.join_next(), if !calls.is_empty() => self.call_ended(ended),
                () = self.vpc_became_ready(&now_desired, &mut board) => {}
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    fn call_ended(&mut self, ended: Result<CallEnd, tokio::task::JoinError>) {
        let Ok((worker, result)) = ended else { return };
        self.calls.remove(&worker);
        match result {
            Ok(()) => {
                self.failed.remove(&worker);
            }
            Err(message) => {
                if self.failed.get(&worker).is_none_or(|(_, before)| *before != message) {
                    tracing::warn!(driver = self.driver, worker, message, "worker driver refused");
                }
                self.failed.insert(worker, (Instant::now(), message));
            }
        }
    }

    /// Returns when a cluster that waits for its VPC has it.
    async fn vpc_became_ready(&self, desired: &pb::HostDesired, board: &mut watch::Receiver<u64>) {
        let waiting: Vec<&str> = desired
            .clusters
            .iter()
            .filter(|c| c.workers.iter().any(|w| w.driver == self.driver))
            .map(|c| c.id.as_str())
            .filter(|id| !self.vpc_ready(id))
            .collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        while board.changed().await.is_ok() {
            if waiting.iter().any(|id| self.vpc_ready(id)) {
                return;
            }
        }
        std::future::pending().await
    }

    fn vpc_ready(&self, cluster: &str) -> bool {
        self.board.read(cluster, |state| state.vpc_ready).unwrap_or(false)
    }

    async fn probe(&mut self) {
        if Instant::now() < self.probe_at {
            return;
        }
        let probe = self.client.probe(ProbeRequest {});
        let (usable, message) = match tokio::time::timeout(LIST_TIMEOUT, probe).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                (answer.usable, answer.message)
            }
            Ok(Err(status)) => {
                (false, format!("The driver does not answer: {}.", status.message()))
            }
            Err(_) => (false, "The driver does not answer.".to_owned()),
        };
        self.probe_at = Instant::now() + if usable { PROBE_EVERY } else { PROBE_AGAIN };
        self.board.host(|host| {
            let state = pb::DriverState { name: self.driver.clone(), usable, message };
            host.drivers.retain(|driver| driver.name != self.driver);
            host.drivers.push(state);
            host.drivers.sort_by(|a, b| a.name.cmp(&b.name));
        });
    }

    async fn list(&mut self) {
        let asked = Instant::now();
        let list = self.client.list(ListRequest {});
        match tokio::time::timeout(LIST_TIMEOUT, list).await {
            Ok(Ok(answer)) => self.listed = Some((asked, answer.into_inner().workers)),
            Ok(Err(status)) => {
                tracing::debug!(driver = self.driver, message = status.message(), "cannot list");
            }
            Err(_) => tracing::warn!(driver = self.driver, "worker driver does not answer"),
        }
    }

    /// Starts the calls that are needed now.
    fn turn(&mut self, desired: &pb::HostDesired, calls: &mut JoinSet<CallEnd>) {
        // Without a list nothing is known: a worker could be made twice, or deleted wrongly.
        let Some((_, listed)) = self.listed.clone() else { return };
        // Nothing was ever desired: that is no reason to delete what an earlier agent made.
        if desired.revision == 0 {
            return;
        }
        let driver = self.driver.clone();
        let mut wanted = BTreeSet::new();
        for cluster in &desired.clusters {
            for worker in cluster.workers.iter().filter(|w| w.driver == driver) {
                wanted.insert(worker.id.as_str());
                let known = Known { node: worker.node_name.clone(), unwanted: None };
                self.known.insert(worker.id.clone(), known);
                let status = listed.iter().find(|s| s.worker_id == worker.id);
                let missing = status.is_none_or(|s| s.phase() == Phase::Failed);
                let retry = self.failed.get(&worker.id).is_none_or(|(at, _)| at.elapsed() > RETRY);
                if missing && retry && self.vpc_ready(&cluster.id) {
                    self.ensure(&cluster.id, worker, calls);
                }
            }
        }
        for status in &listed {
            if !wanted.contains(status.worker_id.as_str()) && !self.drains(desired, status) {
                self.delete(status, calls);
            }
        }
        self.known.retain(|worker, _| {
            wanted.contains(worker.as_str()) || listed.iter().any(|s| s.worker_id == *worker)
        });
        self.failed.retain(|worker, _| wanted.contains(worker.as_str()));
    }

    /// True while a worker has to stay for its pods. When they are gone its Node is deleted; a Node
    /// that is not Ready has no pods to wait for.
    fn drains(&mut self, desired: &pb::HostDesired, status: &WorkerStatus) -> bool {
        let cluster = desired.clusters.iter().find(|c| c.id == status.cluster_id);
        let is_served = cluster.is_some_and(|cluster| cluster.bootstrap.is_some());
        let Some(known) = self.known.get_mut(&status.worker_id) else { return false };
        let since = *known.unwanted.get_or_insert_with(Instant::now);
        let ready = |state: &pb::ClusterState| {
            state.nodes.iter().any(|node| node.name == known.node && node.ready)
        };
        let is_ready = self.board.read(&status.cluster_id, ready).unwrap_or(false);
        status.phase() == Phase::Running && is_served && is_ready && since.elapsed() < DRAIN
    }

    fn ensure(&mut self, cluster: &str, worker: &pb::Worker, calls: &mut JoinSet<CallEnd>) {
        if self.calls.contains_key(&worker.id) {
            return;
        }
        // The marker outlives the agent: a removed cluster asks every driver that has one.
        let markers = self.config.clusters_dir().join(cluster).join("workers");
        if let Err(error) = std::fs::write(markers.join(&self.driver), b"") {
            tracing::warn!(cluster.id = cluster, %error, "worker cannot be recorded");
            return;
        }
        self.calls.insert(worker.id.clone(), cluster.to_owned());
        let spec = WorkerSpec {
            worker_id: worker.id.clone(),
            cluster_id: cluster.to_owned(),
            netns: netns_name(cluster),
            bridge: BRIDGE.to_owned(),
            mac: worker.mac.clone(),
            vcpus: worker.vcpus,
            memory_mib: worker.memory_mib,
            disk_gib: worker.disk_gib,
            image_dir: self.config.image_dir.display().to_string(),
            user_data: worker.user_data.clone(),
        };
        let mut client = self.client.clone();
        let id = worker.id.clone();
        calls.spawn(async move {
            let call = client.ensure(EnsureRequest { spec: Some(spec) });
            let result = match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(answer)) => match answer.into_inner().status {
                    Some(status) if status.phase() == Phase::Failed => Err(status.message),
                    _ => Ok(()),
                },
                Ok(Err(status)) => Err(status.message().to_owned()),
                Err(_) => Err("the driver took too long".to_owned()),
            };
            (id, result)
        });
    }

    fn delete(&mut self, status: &WorkerStatus, calls: &mut JoinSet<CallEnd>) {
        let id = status.worker_id.clone();
        if self.calls.contains_key(&id) {
            return;
        }
        self.calls.insert(id.clone(), status.cluster_id.clone());
        let mut client = self.client.clone();
        calls.spawn(async move {
            let call = client.delete(DeleteRequest { worker_id: id.clone() });
            let result = match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(status)) => Err(status.message().to_owned()),
                Err(_) => Err("the driver took too long".to_owned()),
            };
            (id, result)
        });
    }

    fn publish(&self, desired: &pb::HostDesired) {
        let empty = Vec::new();
        let (listed_at, listed) = match &self.listed {
            Some((at, listed)) => (Some(*at), listed),
            None => (None, &empty),
        };
        let mut view = DriverView { listed_at, ..DriverView::default() };
        view.in_use.extend(listed.iter().map(|status| status.cluster_id.clone()));
        view.in_use.extend(self.calls.values().cloned());
        let mut wanted = BTreeSet::new();
        for cluster in &desired.clusters {
            for worker in cluster.workers.iter().filter(|w| w.driver == self.driver) {
                wanted.insert(worker.id.as_str());
                let status = listed.iter().find(|s| s.worker_id == worker.id);
                let state = self.state(worker, status);
                view.states.entry(cluster.id.clone()).or_default().push(state);
            }
        }
        for status in listed.iter().filter(|s| !wanted.contains(s.worker_id.as_str())) {
            view.states.entry(status.cluster_id.clone()).or_default().push(pb::WorkerState {
                id: status.worker_id.clone(),
                phase: pb::WorkerPhase::Removing.into(),
                message: "Is being removed.".to_owned(),
                node_name: self
                    .known
                    .get(&status.worker_id)
                    .map(|known| known.node.clone())
                    .unwrap_or_default(),
            });
        }
        self.table.publish(&self.driver, view);
    }

    fn state(&self, worker: &pb::Worker, status: Option<&WorkerStatus>) -> pb::WorkerState {
        let failed = self.failed.get(&worker.id).map(|(_, message)| message.clone());
        let (phase, message) = match status {
            Some(status) => {
                let phase = match status.phase() {
                    Phase::Booting | Phase::Unspecified => pb::WorkerPhase::Booting,
                    Phase::Running => pb::WorkerPhase::Running,
                    Phase::Exited => pb::WorkerPhase::Exited,
                    Phase::Failed => pb::WorkerPhase::Broken,
                };
                (phase, status.message.clone())
            }
            None => match failed {
                Some(message) => (pb::WorkerPhase::Broken, message),
                None => (pb::WorkerPhase::Pending, String::new()),
            },
        };
        pb::WorkerState {
            id: worker.id.clone(),
            phase: phase.into(),
            message,
            node_name: worker.node_name.clone(),
        }
    }
}
