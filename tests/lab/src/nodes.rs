//! The two nodes: sandboxes of Marina's own driver, booted from an image whose kubelet and
//! kube-proxy are those of the mix.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use driver_api::pb::{DeleteRequest, EnsureRequest, ListRequest};
use driver_api::{Phase, WorkerDriverClient, WorkerSpec, WorkerStatus};
use provisioner_pki::Issued;
use serde_json::json;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::control::{ADDRESS, DNS_DOMAIN, DNS_IP, POD_CIDR, PORT, SERVICE_CIDR};
use crate::network;
use crate::process::{Process, Spec};

/// How long a node may take to start its services.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(20);
/// The bridge in the lab's namespace.
const BRIDGE: &str = "br0";
/// Memory of a node.
const MEMORY_MIB: u64 = 8192;
/// How many pods a node takes. Some tests fill a fraction of all nodes: two processors carry no more.
pub const MAX_PODS: u32 = 40;

/// What a node needs to know of its cluster.
pub struct Join<'a> {
    /// The cluster's authority.
    pub ca_pem: &'a str,
    /// `id.secret` of a bootstrap token.
    pub bootstrap_token: &'a str,
    /// kube-proxy's certificate, also node-agent's.
    pub kube_proxy: &'a Issued,
    /// How many pods the node takes.
    pub max_pods: u32,
}

/// The driver and its sandboxes. Deleted when dropped.
pub struct Nodes {
    lab: String,
    client: WorkerDriverClient<Channel>,
    runtime: Runtime,
    workers: PathBuf,
    logs: PathBuf,
    driver: Process,
}

impl Nodes {
    /// Starts the driver and deletes the sandboxes that an earlier lab of this name left.
    ///
    /// # Errors
    /// The driver does not start, or a sandbox cannot be deleted.
    pub fn start(lab: &str, driver: &Path, dir: &Path, logs: &Path) -> anyhow::Result<Self> {
        let socket = dir.join("driver.sock");
        let mut spec = Spec::new("driver", driver);
        spec.flag("socket", &socket).flag("state-dir", dir.join("workers"));
        let mut driver = Process::start(spec, &network::name(lab), logs)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting a runtime")?;
        let mut client = runtime.block_on(async { driver_api::connect(&socket) });
        let deadline = Instant::now() + PATIENCE;
        while runtime.block_on(client.list(ListRequest {})).is_err() {
            driver.check()?;
            if Instant::now() > deadline {
                bail!("the driver of sandboxes does not answer. {}", driver.last_words());
            }
            std::thread::sleep(POLL);
        }
        let (workers, logs) = (dir.join("workers"), logs.to_owned());
        let mut nodes = Self { lab: lab.to_owned(), client, runtime, workers, logs, driver };
        nodes.delete_all()?;
        Ok(nodes)
    }

    /// Boots node `number`, 1 to 200, from `image`.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn boot(&mut self, number: u8, image: &Path, join: &Join<'_>) -> anyhow::Result<()> {
        let mac = format!("52:54:00:00:01:{number:02x}");
        let user_data = user_data(number, &mac, join);
        let spec = WorkerSpec {
            worker_id: format!("{}-n{number}", self.lab),
            cluster_id: self.lab.clone(),
            netns: network::name(&self.lab),
            bridge: BRIDGE.into(),
            mac,
            vcpus: u32::try_from(std::thread::available_parallelism()?.get())?,
            memory_mib: MEMORY_MIB,
            disk_gib: 20,
            image_dir: image.to_str().context("the image's path is not UTF-8")?.to_owned(),
            user_data: serde_json::to_vec(&user_data)?,
        };
        let request = EnsureRequest { spec: Some(spec) };
        self.runtime.block_on(self.client.ensure(request)).context("booting a sandbox")?;
        Ok(())
    }

    /// Waits until every node's services were started once. Returns the nodes' first processes.
    ///
    /// # Errors
    /// A node has ended or takes too long.
    pub fn wait_until_up(&mut self) -> anyhow::Result<Vec<u32>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let workers = self.list()?;
            if workers.iter().all(|worker| worker.phase() == Phase::Running) {
                return Ok(workers.iter().map(|worker| worker.pid).collect());
            }
            let ended = |w: &&WorkerStatus| matches!(w.phase(), Phase::Exited | Phase::Failed);
            if let Some(worker) = workers.iter().find(ended) {
                bail!("node {}: {}", worker.worker_id, worker.message);
            }
            if Instant::now() > deadline {
                bail!("the nodes' services do not start. {}", self.driver.last_words());
            }
            std::thread::sleep(POLL);
        }
    }

    fn list(&mut self) -> anyhow::Result<Vec<WorkerStatus>> {
        let listed = self.runtime.block_on(self.client.list(ListRequest {}));
        Ok(listed.context("listing sandboxes")?.into_inner().workers)
    }

    fn delete_all(&mut self) -> anyhow::Result<()> {
        for worker in self.list()? {
            // Without its logs it goes too.
            let id = &worker.worker_id;
            let _ = save_logs(&self.workers.join(id), &self.logs.join(id));
            let request = DeleteRequest { worker_id: worker.worker_id };
            self.runtime.block_on(self.client.delete(request)).context("deleting a sandbox")?;
        }
        Ok(())
    }
}

/// Keeps the logs of a node's services, which go with the node.
fn save_logs(worker: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(worker.join("log"))?.flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Err(error) = self.delete_all() {
            eprintln!("a node is left until the next lab of this name: {error:#}");
        }
    }
}

/// The node's name.
pub fn name(number: u8) -> String {
    format!("n{number}")
}

/// What node-init reads: `node-image/init/src/user_data.rs`.
fn user_data(number: u8, mac: &str, join: &Join<'_>) -> serde_json::Value {
    json!({
        "version": 1,
        "node_name": name(number),
        "network": {
            "mac": mac, "address": format!("10.0.1.{number}/16"), "gateway": ADDRESS,
        },
        "api_server": {
            "url": format!("https://{ADDRESS}:{PORT}"),
            "ca_pem": join.ca_pem,
            "bootstrap_token": join.bootstrap_token,
        },
        "pod_cidr": POD_CIDR,
        "service_cidr": SERVICE_CIDR,
        "dns_ip": DNS_IP,
        "dns_domain": DNS_DOMAIN,
        "max_pods": join.max_pods,
        "kube_proxy": {
            "client_cert_pem": join.kube_proxy.cert_pem,
            "client_key_pem": join.kube_proxy.key_pem,
        },
    })
}
