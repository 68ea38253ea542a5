//! A real agent process with small fake members: supervision, adoption, isolation, removal.
//!
//! Needs root (user ids, namespaces, control groups); without it there is nothing to test.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use provisioner_api::{HostAgentClient, netns_name, pb};
use provisioner_pki::{RegionPki, region::AGENT_NAME};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const DEADLINE: Duration = Duration::from_secs(25);

/// Says who it is, what it sees, and stays.
const FAKE: &str = "#!/bin/sh\n\
    id -u > /mnt/data/uid\n\
    ls /mnt > /mnt/data/sees\n\
    cat /mnt/config/greeting >> /mnt/data/greetings\n\
    test -w /mnt/config/greeting && echo writable > /mnt/data/writable\n\
    echo started with $1\n\
    exec sleep 1000\n";

struct Host {
    dir: tempfile::TempDir,
    cluster: String,
    port: u16,
    gateway: u16,
    region: RegionPki,
    agent: Option<Child>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn is_root() -> bool {
    let out = Command::new("id").arg("-u").output().unwrap();
    out.stdout.starts_with(b"0\n")
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        fs::create_dir(&release).unwrap();
        for name in ["etcd", "kube-apiserver"] {
            let path = release.join(name);
            fs::write(&path, FAKE).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let region = RegionPki::new(now()).unwrap();
        let agent = region.agent("h1", &[IpAddr::V4(Ipv4Addr::LOCALHOST)], now()).unwrap();
        let pki = dir.path().join("data/pki");
        fs::create_dir_all(&pki).unwrap();
        fs::write(pki.join("agent.crt"), agent.cert_pem).unwrap();
        fs::write(pki.join("agent.key"), agent.key_pem).unwrap();
        fs::write(pki.join("region-ca.crt"), &region.ca.cert_pem).unwrap();
        // A data directory that only root can enter must not keep members from their files.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let cluster = marina_db::ids::random_hex(4);
        let mut host =
            Self { dir, cluster, port: free_port(), gateway: free_port(), region, agent: None };
        host.start();
        host
    }

    fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = fs::OpenOptions::new().create(true).append(true).open(path("agent.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_provisioner"))
            .arg("agent")
            .args(["--host", "h1"])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--gateway-listen", &format!("127.0.0.1:{}", self.gateway)])
            .arg("--data-dir")
            .arg(path("data"))
            .arg("--release-dir")
            .arg(path("release"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    async fn client(&self) -> HostAgentClient<Channel> {
        let controller = self.region.controller(now()).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.region.ca.cert_pem))
            .identity(Identity::from_pem(controller.cert_pem, controller.key_pem))
            .domain_name(AGENT_NAME);
        let url = format!("https://127.0.0.1:{}", self.port);
        let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
        let until = Instant::now() + DEADLINE;
        loop {
            match endpoint.connect().await {
                Ok(channel) => return HostAgentClient::new(channel),
                Err(error) => assert!(Instant::now() < until, "agent does not answer: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn apply(&self, revision: u64, members: &[pb::Member]) {
        let clusters = match members {
            [] => Vec::new(),
            members => vec![pb::Cluster {
                id: self.cluster.clone(),
                vpc: Some(pb::Vpc {
                    cidr: "10.0.0.0/16".into(),
                    pod_cidr: "10.244.0.0/16".into(),
                    service_cidr: "10.96.0.0/16".into(),
                    listeners: vec![pb::ApiListener { address: "10.0.0.1".into(), port: 7000 }],
                }),
                members: members.to_vec(),
                ..pb::Cluster::default()
            }],
        };
        let desired = pb::HostDesired { host: "h1".into(), revision, clusters };
        self.client().await.apply(desired).await.unwrap();
    }

    /// Waits for a report that fits.
    async fn wait(&self, what: &str, fits: impl Fn(&pb::HostObserved) -> bool) -> pb::HostObserved {
        let watch = async {
            let mut client = self.client().await;
            let mut reports = client.observe(pb::ObserveRequest {}).await.unwrap().into_inner();
            loop {
                let report = reports.message().await.unwrap().expect("the agent reports");
                if fits(&report) {
                    return report;
                }
            }
        };
        let waited = tokio::time::timeout(DEADLINE, watch).await;
        waited.unwrap_or_else(|_| panic!("{what}: {}", self.log()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    fn cluster_dir(&self) -> PathBuf {
        self.dir.path().join("data/clusters").join(&self.cluster)
    }

    fn data(&self, member: &str, file: &str) -> Option<String> {
        let path = self.cluster_dir().join("members").join(member).join("data").join(file);
        fs::read_to_string(path).ok()
    }

    /// Without a health endpoint a member counts as ready before its program has said anything.
    async fn wait_greetings(&self, expected: &str) {
        let until = Instant::now() + DEADLINE;
        while self.data("etcd-0", "greetings").as_deref() != Some(expected) {
            let now = self.data("etcd-0", "greetings");
            assert!(Instant::now() < until, "{now:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_file(&self, member: &str, file: &str) -> String {
        let until = Instant::now() + DEADLINE;
        loop {
            match self.data(member, file) {
                Some(text) if text.ends_with('\n') => return text,
                _ => assert!(Instant::now() < until, "no {file} of {member}: {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Host {
    /// Even a failed test leaves nothing behind.
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let path = |name: &str| self.dir.path().join(name);
        let _ = Command::new(env!("CARGO_BIN_EXE_provisioner"))
            .args(["agent", "--purge", "--host", "h1", "--listen", "127.0.0.1:0"])
            .args(["--gateway-listen", "127.0.0.1:0", "--data-dir"])
            .arg(path("data"))
            .arg("--release-dir")
            .arg(path("release"))
            .stderr(Stdio::null())
            .status();
    }
}

fn member(name: &str, greeting: &str) -> pb::Member {
    pb::Member {
        id: format!("id-{name}"),
        name: name.to_owned(),
        binary: name.trim_end_matches("-0").to_owned(),
        args: vec![greeting.to_owned()],
        files: BTreeMap::from([("greeting".to_owned(), format!("{greeting}\n"))]),
        health: None,
        limits: Some(pb::Limits { memory_mib: 64, pids: 16, cpu_shares: 512 }),
    }
}

fn pid(report: &pb::HostObserved, name: &str) -> Option<i32> {
    let member = report.clusters.iter().flat_map(|c| &c.members).find(|m| m.name == name)?;
    (member.phase() == pb::MemberPhase::Ready && member.pid > 0).then_some(member.pid)
}

fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A process that has ended and waits for its parent is not running.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn kill_9(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

fn cgroups(cluster: &str) -> usize {
    let mut found = 0;
    for hierarchy in ["", "memory", "pids", "cpu"] {
        let path = Path::new("/sys/fs/cgroup").join(hierarchy).join(format!("marina-{cluster}"));
        found += usize::from(path.exists());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_live_their_own_life() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    let (etcd, api) = (member("etcd-0", "one"), member("kube-apiserver-0", "one"));
    host.apply(5, &[etcd.clone(), api.clone()]).await;
    let both = |r: &pb::HostObserved| pid(r, "etcd-0").zip(pid(r, "kube-apiserver-0"));
    let report = host.wait("both run", |r| both(r).is_some()).await;
    let (first, second) = both(&report).unwrap();

    // Its own user, in a view of the machine that has its own files only.
    let uid = host.wait_file("etcd-0", "uid").await;
    assert_ne!(uid.trim(), "0");
    assert_eq!(host.wait_file("etcd-0", "sees").await, "config\ndata\negress\nrelease\n");
    assert_eq!(host.wait_file("etcd-0", "greetings").await, "one\n");
    assert_eq!(host.data("etcd-0", "writable"), None);
    let report = host.wait("the VPC is made", |r| r.clusters[0].vpc_ready).await;
    assert_eq!(report.revision, 5);
    assert!(Path::new("/run/netns").join(netns_name(&host.cluster)).exists());
    assert!(cgroups(&host.cluster) > 0);

    // The agent is killed: members go on and are adopted, one that died meanwhile runs again.
    host.kill();
    assert!(runs(first) && runs(second));
    kill_9(second);
    host.start();
    let report = host.wait("adopted", |r| both(r).is_some_and(|(_, api)| api != second)).await;
    let (adopted, restarted) = both(&report).unwrap();
    assert_eq!(adopted, first, "an adopted member is not started again");
    assert_eq!(report.revision, 5, "the agent works from what it was last given");
    assert_eq!(host.data("etcd-0", "greetings").unwrap(), "one\n");

    // A killed member runs again.
    kill_9(first);
    let again = |r: &pb::HostObserved| pid(r, "etcd-0").is_some_and(|pid| pid != first);
    host.wait("it runs again", again).await;

    // New files: a restart of that member, and of no other.
    host.wait_greetings("one\none\n").await;
    host.apply(6, &[member("etcd-0", "two"), api.clone()]).await;
    host.wait_greetings("one\none\ntwo\n").await;
    let report = host.wait("both run", |r| both(r).is_some()).await;
    let (etcd_now, api_now) = both(&report).unwrap();
    assert_eq!(api_now, restarted);

    // An older desired state is refused; the newest one removes everything.
    let stale = pb::HostDesired { host: "h1".into(), revision: 4, clusters: vec![] };
    let refused = host.client().await.apply(stale).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    host.apply(7, &[]).await;
    let gone = |r: &pb::HostObserved| r.revision == 7 && r.clusters.is_empty();
    host.wait("everything is gone", gone).await;
    assert!(!runs(etcd_now) && !runs(api_now));
    assert!(!host.cluster_dir().exists());
    assert!(!Path::new("/run/netns").join(netns_name(&host.cluster)).exists());
    assert_eq!(cgroups(&host.cluster), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_goes_on_after_the_agent_was_killed() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    host.apply(1, &[member("etcd-0", "one")]).await;
    let report = host.wait("it runs", |r| pid(r, "etcd-0").is_some()).await;
    let etcd = pid(&report, "etcd-0").unwrap();
    host.apply(2, &[]).await;
    host.kill();
    host.start();
    let gone = |r: &pb::HostObserved| r.revision == 2 && r.clusters.is_empty();
    host.wait("everything is gone", gone).await;
    assert!(!runs(etcd));
    assert!(!host.cluster_dir().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_run_says_why() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    fs::write(
        host.dir.path().join("release/kube-apiserver"),
        "#!/bin/sh\necho the port is taken\nexit 3\n",
    )
    .unwrap();
    let missing = pb::Member { binary: "kube-proxy".into(), ..member("missing", "x") };
    host.apply(1, &[member("kube-apiserver-0", "one"), missing]).await;
    let message = |r: &pb::HostObserved, name: &str| {
        let members = r.clusters.iter().flat_map(|c| &c.members);
        members.filter(|m| m.name == name).map(|m| m.message.clone()).next().unwrap_or_default()
    };
    host.wait("both say why", |r| {
        message(r, "kube-apiserver-0") == "exited with code 3: the port is taken"
            && message(r, "missing").starts_with("kube-proxy is not in the release")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_regions_controllers_are_heard() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    host.wait("it answers", |_| true).await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&host.region.ca.cert_pem))
        .domain_name(AGENT_NAME);
    let stranger = RegionPki::new(now()).unwrap().controller(now()).unwrap();
    // An agent's certificate is for servers only: it does not command other agents.
    let agent = host.region.agent("h2", &[], now()).unwrap();
    let identities = [None, Some(stranger), Some(agent)];
    for identity in identities {
        let tls = match identity {
            Some(issued) => {
                tls.clone().identity(Identity::from_pem(issued.cert_pem, issued.key_pem))
            }
            None => tls.clone(),
        };
        let url = format!("https://127.0.0.1:{}", host.port);
        let endpoint = Endpoint::from_shared(url).unwrap().tls_config(tls).unwrap();
        // With TLS 1.3 a client learns that it was refused at its first request.
        if let Ok(channel) = endpoint.connect().await {
            let nothing = pb::HostDesired { host: "h1".into(), revision: 9, clusters: vec![] };
            assert!(HostAgentClient::new(channel).apply(nothing).await.is_err());
        }
    }
}
