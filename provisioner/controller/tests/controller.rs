//! The controller against a fake agent that makes everything so at once: from a row in the
//! database to a ready cluster, workers, replacement and deletion.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use marina_db::{
    ClusterId, Db, OrgId,
    clusters::{ClusterSpec, Driver},
    ids::NodeGroupId,
    node_groups::NodeGroupSpec,
    nodes::{Node, NodePhase},
    observed::ClusterPhase,
    seal::Sealer,
};
use provisioner_api::{HostAgent, HostAgentServer, pb};
use provisioner_controller::{ControllerConfig, ControllerFlags};
use provisioner_pki::RegionPki;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{TcpListenerStream, WatchStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// A worker that exits is replaced 15 s after it was made at the earliest.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the fake agent does to a worker instead of running it.
#[derive(Clone, Debug, Default)]
struct Faults {
    exited: Vec<String>,
}

#[derive(Clone)]
struct FakeAgent {
    desired: Arc<Mutex<pb::HostDesired>>,
    faults: Arc<Mutex<Faults>>,
    reports: Arc<watch::Sender<pb::HostObserved>>,
}

impl FakeAgent {
    fn new() -> Self {
        let fake = Self {
            desired: Arc::default(),
            faults: Arc::default(),
            reports: Arc::new(watch::Sender::new(pb::HostObserved::default())),
        };
        fake.report();
        fake
    }

    /// Everything is as desired, but for the faults.
    fn report(&self) {
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

struct Region {
    dir: tempfile::TempDir,
    db: Db,
    agent: FakeAgent,
    org: OrgId,
    stop: CancellationToken,
    controller: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Region {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let now = marina_db::now_ms() / 1000;
        let region = RegionPki::new(now).unwrap();
        let controller = region.controller(now).unwrap();
        std::fs::write(path("region-ca.crt"), &region.ca.cert_pem).unwrap();
        std::fs::write(path("controller.crt"), controller.cert_pem).unwrap();
        std::fs::write(path("controller.key"), controller.key_pem).unwrap();
        Sealer::create_key_file(&path("secret.key")).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ips = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let identity = region.agent("h1", &ips, now).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(identity.cert_pem, identity.key_pem))
            .client_ca_root(Certificate::from_pem(&region.ca.cert_pem));
        let agent = FakeAgent::new();
        tokio::spawn(
            Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(HostAgentServer::new(agent.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let db = Db::open(&path("marina.db")).await.unwrap();
        let mut tx = db.write().await.unwrap();
        tx.register_host("h1", &format!("https://{addr}"), "z1").await.unwrap();
        let org = tx.create_organization("acme").await.unwrap().id;
        tx.commit().await.unwrap();
        let stop = CancellationToken::new();
        let mut region = Self { dir, db, agent, org, stop, controller: None };
        region.start();
        region
    }

    fn start(&mut self) {
        let config = ControllerConfig::from_flags(ControllerFlags {
            database: self.dir.path().join("marina.db"),
            secret_key_file: self.dir.path().join("secret.key"),
            pki_dir: self.dir.path().to_owned(),
            domain: "marina.local".into(),
            cluster_domain: "cluster.local".into(),
            gateway_max_connections: 10,
            name: None,
        })
        .unwrap();
        let run = provisioner_controller::run(config, self.stop.clone());
        self.controller = Some(tokio::spawn(run));
    }

    /// Waits until the state of the database fits.
    async fn wait<T>(&self, what: &str, mut fits: impl AsyncFnMut(&Db) -> Option<T>) -> T {
        let wait = async {
            let mut bell = 0;
            loop {
                if let Some(found) = fits(&self.db).await {
                    return found;
                }
                bell = self.db.wait_for_bell(bell, Duration::from_secs(1)).await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}"))
    }

    async fn create(&self, name: &str) -> ClusterId {
        let mut tx = self.db.write().await.unwrap();
        let cluster = tx.create_cluster(&self.org, &ClusterSpec::named(name), "ada").await.unwrap();
        tx.commit().await.unwrap();
        cluster.id
    }

    async fn wait_phase(&self, id: &ClusterId, phase: ClusterPhase) {
        self.wait("the cluster's phase", async |db| {
            let seen = db.read().await.unwrap().cluster_observed(id).await.unwrap();
            (seen.phase == phase).then_some(())
        })
        .await;
    }

    async fn create_pool(&self, id: &ClusterId) -> NodeGroupId {
        let pool = NodeGroupSpec {
            name: "pool".into(),
            desired: 2,
            driver: Driver::Sandbox,
            vcpus: 1,
            memory_mib: 1024,
            disk_gib: 5,
            labels: Default::default(),
            taints: vec![],
        };
        let mut tx = self.db.write().await.unwrap();
        let group = tx.create_node_group(id, &pool).await.unwrap();
        tx.commit().await.unwrap();
        group.id
    }

    /// Waits for two Ready nodes and nothing else.
    async fn wait_nodes(&self, id: &ClusterId, fits: impl Fn(&[Node]) -> bool) -> Vec<Node> {
        self.wait("two ready nodes", async |db| {
            let nodes = db.read().await.unwrap().nodes_of(id).await.unwrap();
            let ready = nodes.iter().all(|node| node.phase == NodePhase::Ready);
            (nodes.len() == 2 && ready && fits(&nodes)).then_some(nodes)
        })
        .await
    }

    async fn kinds(&self, id: &ClusterId) -> Vec<String> {
        let events = self.db.read().await.unwrap().events_after(id, 0, 100).await.unwrap();
        events.into_iter().map(|event| event.kind).collect()
    }
}

#[tokio::test]
async fn a_row_becomes_a_cluster_with_workers_and_goes_again() {
    let region = Region::new().await;
    let id = region.create("demo").await;
    region.wait_phase(&id, ClusterPhase::Ready).await;
    let seen = region.db.read().await.unwrap().cluster_observed(&id).await.unwrap();
    assert_eq!(seen.endpoint, "https://127.0.0.1:8443");
    assert_eq!(seen.server_name, format!("{id}.marina.local"));
    assert_eq!(seen.observed_generation, 1);

    region.create_pool(&id).await;
    let nodes = region.wait_nodes(&id, |_| true).await;
    let given = region.agent.desired.lock().unwrap().clone();
    let worker = &given.clusters[0].workers[0];
    let data: serde_json::Value = serde_json::from_slice(&worker.user_data).unwrap();
    assert_eq!(data["dns_ip"], "10.96.0.10");
    assert_eq!(data["labels"]["marina.dev/node-group"], "pool");
    assert!(data["api_server"]["url"].as_str().unwrap().starts_with("https://10.0.0.1:"));

    // A machine ends long after it was made: it is replaced at once.
    let lost = nodes[0].id.to_string();
    region.agent.faults.lock().unwrap().exited.push(lost.clone());
    region.agent.report();
    region.wait_nodes(&id, |nodes| nodes.iter().all(|n| n.id.as_str() != lost)).await;

    let mut tx = region.db.write().await.unwrap();
    tx.request_cluster_deletion(&id).await.unwrap();
    tx.commit().await.unwrap();
    region
        .wait("the cluster is gone", async |db| {
            db.read().await.unwrap().clusters().await.unwrap().is_empty().then_some(())
        })
        .await;
    assert!(region.agent.desired.lock().unwrap().clusters.is_empty());
    let kinds = region.kinds(&id).await;
    for kind in [
        "ClusterReady",
        "NodeReady",
        "NodeExited",
        "NodeReplaced",
        "ClusterDeleting",
        "ClusterDeleted",
    ] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} is not in {kinds:?}");
    }
}

#[tokio::test]
async fn a_controller_that_comes_back_goes_on_and_changes_nothing() {
    let mut region = Region::new().await;
    let id = region.create("demo").await;
    region.wait_phase(&id, ClusterPhase::Ready).await;
    let before = region.agent.desired.lock().unwrap().clusters.clone();
    region.controller.take().unwrap().abort();
    region.start();
    // It leads when the dead one's lease has run out, and then takes new wishes.
    let second = region.create("second").await;
    region.wait_phase(&second, ClusterPhase::Ready).await;
    let after = region.agent.desired.lock().unwrap().clusters.clone();
    assert!(after.contains(&before[0]), "the first cluster is given as before");
    let events = region.kinds(&id).await;
    assert_eq!(events, ["ClusterProvisioning", "ClusterReady"]);
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_said_in_words() {
    let region = Region::new().await;
    let spec = ClusterSpec { pod_cidr: "10.0.0.0/8".into(), ..ClusterSpec::named("overlap") };
    let mut tx = region.db.write().await.unwrap();
    let cluster = tx.create_cluster(&region.org, &spec, "ada").await.unwrap();
    tx.commit().await.unwrap();
    let message = region
        .wait("it says why", async |db| {
            let mut tx = db.read().await.unwrap();
            let seen = tx.cluster_observed(&cluster.id).await.unwrap();
            (seen.updated_ms > 0).then_some(seen.message)
        })
        .await;
    assert_eq!(message, "10.0.0.0/16 and 10.0.0.0/8 overlap.");
    assert!(region.agent.desired.lock().unwrap().clusters.is_empty());
}
