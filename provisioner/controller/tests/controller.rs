//! The controller against a fake agent that makes everything so at once: from a row in the
//! database to a ready cluster, workers, replacement and deletion.
#![allow(clippy::unwrap_used)]

mod fake_agent;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use fake_agent::FakeAgent;
use marina_db::{
    ClusterId, Db, OrgId,
    clusters::{ClusterSpec, ControlPlane, Driver},
    ids::NodeGroupId,
    node_groups::NodeGroupSpec,
    nodes::{Node, NodePhase},
    observed::ClusterPhase,
    seal::Sealer,
};
use provisioner_api::HostAgentServer;
use provisioner_controller::{ControllerConfig, ControllerFlags};
use provisioner_pki::RegionPki;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// A worker that exits is replaced 15 s after it was made at the earliest.
const DEADLINE: Duration = Duration::from_secs(60);

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
        self.create_as(&ClusterSpec::named(name)).await
    }

    async fn create_as(&self, spec: &ClusterSpec) -> ClusterId {
        let mut tx = self.db.write().await.unwrap();
        let cluster = tx.create_cluster(&self.org, spec, "ada").await.unwrap();
        tx.commit().await.unwrap();
        cluster.id
    }

    /// Takes from every API server's stored files what releases before API aggregation did not
    /// have.
    async fn forget_front_proxies(&self) -> usize {
        let sealer = Sealer::load(&self.dir.path().join("secret.key")).unwrap();
        let mut tx = self.db.write().await.unwrap();
        let mut changed = 0;
        for (member, json) in tx.secrets_named(&sealer, "files").await.unwrap() {
            let mut stored: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let files = stored["files"].as_object_mut().unwrap();
            let before = files.len();
            files.retain(|name, _| !name.starts_with("front-proxy"));
            changed += usize::from(files.len() < before);
            let json = serde_json::to_vec(&stored).unwrap();
            tx.set_secret(&sealer, &member, "files", &json).await.unwrap();
        }
        tx.commit().await.unwrap();
        changed
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
async fn api_servers_of_an_older_release_get_new_files_one_by_one() {
    let region = Region::new().await;
    let ha = ClusterSpec { control_plane: ControlPlane::Ha, ..ClusterSpec::named("old") };
    let id = region.create_as(&ha).await;
    region.wait_phase(&id, ClusterPhase::Ready).await;
    region.agent.front_proxies.lock().unwrap().clear();
    let servers = region.forget_front_proxies().await;
    assert!(servers > 1, "one API server alone shows no order");
    region
        .wait("every API server has a front-proxy certificate again", async |_| {
            let seen = region.agent.front_proxies.lock().unwrap();
            (seen.last() == Some(&servers)).then_some(())
        })
        .await;
    let mut seen = region.agent.front_proxies.lock().unwrap().clone();
    seen.dedup();
    // What was given before the first of them got its files may not have been given again.
    seen.retain(|count| *count > 0);
    assert_eq!(seen, (1..=servers).collect::<Vec<_>>());
    let given = region.agent.desired.lock().unwrap().clone();
    let flags = given.clusters[0].members.iter().flat_map(|member| &member.args);
    let flags = flags.filter(|flag| flag.starts_with("--proxy-client-cert-file=")).count();
    assert_eq!(flags, servers);
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
