//! Members as child processes.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_api::client::{Client, connect};
use etcd_api::pb::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use etcd_api::pb::mvccpb::KeyValue;
use tempfile::TempDir;

use super::pki::Pki;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `f` gives something.
pub async fn eventually<T>(what: &str, mut f: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(t) = f().await {
            return t;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Ports {
    client: u16,
    peer: u16,
    metrics: u16,
    /// Joined a cluster that was there.
    existing: bool,
}

impl Ports {
    /// Of the member number `i`. Fixed ones: the cluster's address is its own, and a port below
    /// those that the system hands out cannot be taken meanwhile.
    fn of_member(i: usize, existing: bool) -> Self {
        let client = 12_379 + 10 * u16::try_from(i).unwrap();
        Self { client, peer: client + 1, metrics: client + 2, existing }
    }
}

/// A cluster in a temporary directory. Its processes die with it.
pub struct Cluster {
    pub dir: TempDir,
    pub pki: Pki,
    /// An address of our own in 127.0.0.0/8, so that parallel tests never meet.
    ip: String,
    ports: Vec<Ports>,
    flags: Vec<String>,
    processes: Vec<Option<Child>>,
    tls: etcd_api::tls::ClientTls,
}

impl Cluster {
    pub fn start(members: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::prepare(members, flags);
        for i in 0..members {
            cluster.start_member(i);
        }
        cluster
    }

    /// A cluster whose members have not been started.
    pub fn prepare(members: usize, flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let pki = Pki::new(&dir.path().join("pki"));
        let [a, b, c]: [u8; 3] = rand::random();
        let ip = format!("127.{}.{b}.{}", a | 1, c.clamp(1, 254));
        let ports = (0..members).map(|i| Ports::of_member(i, false)).collect();
        pki.issue("server", &ip);
        let tls = pki.client();
        Self {
            dir,
            pki,
            ip,
            ports,
            flags: flags.iter().map(|s| s.to_string()).collect(),
            processes: (0..members).map(|_| None).collect(),
            tls,
        }
    }

    /// Where a member keeps its data.
    pub fn data_dir(&self, i: usize) -> std::path::PathBuf {
        self.dir.path().join(format!("m{i}"))
    }

    /// Where the other members find a member.
    pub fn peer_url(&self, i: usize) -> String {
        format!("https://{}:{}", self.ip, self.ports[i].peer)
    }

    /// `--initial-cluster-token`.
    pub fn token(&self) -> &str {
        &self.ip
    }

    /// `--initial-cluster`.
    pub fn initial_cluster(&self) -> String {
        let members: Vec<String> =
            (0..self.ports.len()).map(|i| format!("m{i}={}", self.peer_url(i))).collect();
        members.join(",")
    }

    pub fn start_member(&mut self, i: usize) {
        let url = |port: u16| format!("https://{}:{port}", self.ip);
        let peers = self.initial_cluster();
        let p = &self.ports[i];
        let (crt, key, ca) = (
            self.pki.path("server", "crt"),
            self.pki.path("server", "key"),
            self.pki.path("ca", "crt"),
        );
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("m{i}.log")))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_etcd"))
            .args(["--name", &format!("m{i}")])
            .args(["--initial-cluster-token", self.token(), "--log-format=console"])
            .args(["--listen-client-urls", &url(p.client)])
            .args(["--advertise-client-urls", &url(p.client)])
            .args(["--listen-peer-urls", &url(p.peer)])
            .args(["--initial-advertise-peer-urls", &url(p.peer)])
            .args(["--initial-cluster", &peers])
            .args(["--initial-cluster-state", if p.existing { "existing" } else { "new" }])
            .args(["--listen-metrics-urls", &format!("http://{}:{}", self.ip, p.metrics)])
            .arg("--client-cert-auth")
            .arg("--peer-client-cert-auth")
            .args(["--data-dir".as_ref(), self.data_dir(i).as_os_str()])
            .args(["--cert-file".as_ref(), crt.as_os_str()])
            .args(["--key-file".as_ref(), key.as_os_str()])
            .args(["--trusted-ca-file".as_ref(), ca.as_os_str()])
            .args(["--peer-cert-file".as_ref(), crt.as_os_str()])
            .args(["--peer-key-file".as_ref(), key.as_os_str()])
            .args(["--peer-trusted-ca-file".as_ref(), ca.as_os_str()])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.processes[i] = Some(child);
    }

    /// Reserves a place for another member; returns its number and peer URL.
    pub fn reserve_member(&mut self) -> (usize, String) {
        self.ports.push(Ports::of_member(self.ports.len(), true));
        self.processes.push(None);
        let i = self.ports.len() - 1;
        (i, self.peer_url(i))
    }

    /// kill -9.
    pub fn kill(&mut self, i: usize) {
        let mut child = self.processes[i].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP, or SIGCONT.
    pub fn freeze(&self, i: usize, frozen: bool) {
        use nix::sys::signal::{Signal, kill};
        let child = self.processes[i].as_ref().unwrap();
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
    }

    /// SIGTERM; returns whether it exited with success.
    pub fn stop(&mut self, i: usize) -> bool {
        let mut child = self.processes[i].take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        child.wait().unwrap().success()
    }

    pub fn members(&self) -> usize {
        self.ports.len()
    }

    pub fn endpoint(&self, i: usize) -> String {
        format!("https://{}:{}", self.ip, self.ports[i].client)
    }

    pub fn metrics_address(&self, i: usize) -> String {
        format!("{}:{}", self.ip, self.ports[i].metrics)
    }

    /// A client of one member.
    pub fn client(&self, i: usize) -> Client {
        connect(&[self.endpoint(i)], Some(&self.tls)).unwrap()
    }

    /// A client of all members.
    pub fn client_of_all(&self) -> Client {
        let all: Vec<String> = (0..self.ports.len()).map(|i| self.endpoint(i)).collect();
        connect(&all, Some(&self.tls)).unwrap()
    }

    /// Waits until member `i` answers a linearizable read.
    pub async fn ready(&self, i: usize) -> Client {
        let client = self.client(i);
        let get = RangeRequest { key: "ready?".into(), ..Default::default() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.kv().range(get.clone()).await {
                Ok(_) => return client,
                Err(e) if Instant::now() > deadline => {
                    panic!("member {i} does not answer: {e}; its log: {}", self.log(i))
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The number of the member that leads.
    pub async fn leader(&self) -> usize {
        eventually("a leader", async || {
            for i in 0..self.ports.len() {
                if self.processes[i].is_none() {
                    continue;
                }
                let status = self.client(i).maintenance().status(StatusRequest {}).await;
                if let Ok(r) = status {
                    let r = r.into_inner();
                    if r.leader != 0 && r.leader == r.header.unwrap().member_id {
                        return Some(i);
                    }
                }
            }
            None
        })
        .await
    }

    pub fn log(&self, i: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("m{i}.log"))).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub async fn put(client: &Client, key: &str, value: &str) -> Result<i64, tonic::Status> {
    let r = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let response = client.kv().put(r).await?.into_inner();
    Ok(response.header.unwrap().revision)
}

pub async fn get(client: &Client, key: &str) -> Option<KeyValue> {
    let r = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let mut response = client.kv().range(r).await.unwrap().into_inner();
    response.kvs.pop()
}

pub async fn get_prefix(client: &Client, prefix: &str) -> Vec<KeyValue> {
    let r = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: etcd_api::prefix_end(prefix.as_bytes()).into(),
        ..Default::default()
    };
    client.kv().range(r).await.unwrap().into_inner().kvs
}
