//! An agent that makes everything so at once.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use provisioner_api::{HostAgent, launch_hash, pb};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status};

/// What the fake agent does to a worker instead of running it.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub exited: Vec<String>,
}

#[derive(Clone)]
pub struct FakeAgent {
    pub desired: Arc<Mutex<pb::HostDesired>>,
    /// How many API servers had a front-proxy certificate, each time that something was given.
    pub front_proxies: Arc<Mutex<Vec<usize>>>,
    pub faults: Arc<Mutex<Faults>>,
    reports: Arc<watch::Sender<pb::HostObserved>>,
}

impl FakeAgent {
    pub fn new() -> Self {
        let fake = Self {
            desired: Arc::default(),
            front_proxies: Arc::default(),
            faults: Arc::default(),
            reports: Arc::new(watch::Sender::new(pb::HostObserved::default())),
        };
        fake.report();
        fake
    }

    /// Everything is as desired, but for the faults.
    pub fn report(&self) {
        let desired = self.desired.lock().unwrap().clone();
        let faults = self.faults.lock().unwrap().clone();
        let clusters = desired.clusters.iter().map(|cluster| cluster_state(cluster, &faults));
        let driver =
            pb::DriverState { name: "sandbox".into(), usable: true, message: String::new() };
        self.reports.send_replace(pb::HostObserved {
            host: "h1".into(),
            revision: desired.revision,
            capacity: Some(pb::Capacity {
                vcpus: 4,
                memory_mib: 8192,
                disk_free_gib: 50,
                port_min: 20_000,
                port_max: 20_100,
            }),
            drivers: vec![driver],
            clusters: clusters.collect(),
            gateway: "127.0.0.1:8443".into(),
            message: String::new(),
        });
    }
}

fn cluster_state(cluster: &pb::Cluster, faults: &Faults) -> pb::ClusterState {
    let exited = |id: &str| faults.exited.iter().any(|worker| worker == id);
    pb::ClusterState {
        id: cluster.id.clone(),
        members: cluster
            .members
            .iter()
            .map(|member| pb::MemberState {
                id: member.id.clone(),
                name: member.name.clone(),
                phase: pb::MemberPhase::Ready.into(),
                pid: 1,
                launch_hash: launch_hash(member),
                ..pb::MemberState::default()
            })
            .collect(),
        vpc_ready: true,
        bootstrap: cluster
            .bootstrap
            .as_ref()
            .map(|_| pb::BootstrapState { done: true, message: String::new() }),
        workers: cluster
            .workers
            .iter()
            .map(|worker| {
                let phase = match exited(&worker.id) {
                    true => pb::WorkerPhase::Exited,
                    false => pb::WorkerPhase::Running,
                };
                let (id, node_name) = (worker.id.clone(), worker.node_name.clone());
                pb::WorkerState { id, phase: phase.into(), message: String::new(), node_name }
            })
            .collect(),
        nodes: cluster
            .workers
            .iter()
            .map(|worker| pb::NodeState {
                name: worker.node_name.clone(),
                ready: !exited(&worker.id),
                message: String::new(),
            })
            .collect(),
        nodes_known: true,
        ..pb::ClusterState::default()
    }
}

#[tonic::async_trait]
impl HostAgent for FakeAgent {
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<pb::HostObserved, Status>> + Send>>;

    async fn apply(&self, request: Request<pb::HostDesired>) -> Result<Response<pb::Ack>, Status> {
        let desired = request.into_inner();
        let revision = desired.revision;
        let mut now = self.desired.lock().unwrap();
        assert!(revision >= now.revision, "revisions grow");
        let members = desired.clusters.iter().flat_map(|cluster| &cluster.members);
        let count = members.filter(|m| m.files.contains_key("front-proxy-client.crt")).count();
        self.front_proxies.lock().unwrap().push(count);
        *now = desired;
        drop(now);
        self.report();
        Ok(Response::new(pb::Ack { revision }))
    }

    async fn observe(
        &self,
        _request: Request<pb::ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let reports = WatchStream::new(self.reports.subscribe());
        Ok(Response::new(Box::pin(reports.map(Ok))))
    }
}
