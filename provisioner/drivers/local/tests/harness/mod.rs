//! What the process-level tests of the local drivers share: a driver process, a network to put
//! workers in, and waiting for a level.
//!
//! They need root, and the image that `cargo xtask image` bakes, named by `MARINA_IMAGE_DIR`.
#![allow(clippy::unwrap_used)]
// Each test program uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use driver_api::pb::{DeleteRequest, EnsureRequest, ListRequest};
use driver_api::{Phase, WorkerDriverClient, WorkerSpec, WorkerStatus, connect};

/// The image under test.
pub fn image_dir() -> PathBuf {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    assert!(is_root, "this test makes namespaces and needs root: run it with `cargo xtask test`");
    let dir = std::env::var("MARINA_IMAGE_DIR").expect(
        "MARINA_IMAGE_DIR must name a baked node image: run `cargo xtask image`, or all tests \
         with `cargo xtask test`",
    );
    let dir = PathBuf::from(dir);
    assert!(dir.join("manifest.json").exists(), "{} is no node image", dir.display());
    dir
}

/// A network namespace with a bridge, removed at the end.
pub struct Network {
    pub name: String,
}

impl Network {
    pub fn new(tag: &str) -> Self {
        let network = Self { name: format!("marina-{tag}{}", std::process::id()) };
        let name = &network.name;
        sh(&format!(
            "ip netns add {name} && ip -n {name} link add br0 type bridge \
             && ip -n {name} addr add 10.0.0.1/16 dev br0 && ip -n {name} link set br0 up \
             && ip -n {name} link set lo up"
        ));
        network
    }

    /// Runs a command of the image's busybox in the namespace.
    pub fn busybox(&self, image: &Path, command: &str) -> String {
        let busybox = image.join("rootfs/usr/bin/busybox");
        sh(&format!("nsenter --net=/run/netns/{} {} {command}", self.name, busybox.display()))
    }

    pub fn links(&self) -> String {
        sh(&format!("ip -n {} -brief link", self.name))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// A driver process with its state in a directory of its own.
pub struct Driver {
    executable: &'static str,
    pub dir: tempfile::TempDir,
    child: Child,
    pub client: WorkerDriverClient<tonic::transport::Channel>,
}

impl Driver {
    pub async fn start(executable: &'static str) -> Self {
        let dir = tempfile::Builder::new().prefix("marina-test-").tempdir_in("/var/tmp").unwrap();
        let child = spawn(executable, dir.path());
        let client = connect(&dir.path().join("driver.sock"));
        let mut driver = Self { executable, dir, child, client };
        driver.answers().await;
        driver
    }

    /// Kills the driver without warning and starts another one.
    pub async fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.executable, self.dir.path());
        self.answers().await;
    }

    async fn answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.client.list(ListRequest {}).await.is_err() {
            assert!(Instant::now() < deadline, "the driver does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("workers")
    }

    pub async fn ensure(&mut self, spec: &WorkerSpec) -> WorkerStatus {
        let request = EnsureRequest { spec: Some(spec.clone()) };
        self.client.ensure(request).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn delete(&mut self, id: &str) {
        self.client.delete(DeleteRequest { worker_id: id.into() }).await.unwrap();
    }

    pub async fn list(&mut self) -> Vec<WorkerStatus> {
        self.client.list(ListRequest {}).await.unwrap().into_inner().workers
    }

    /// Waits until the only worker is in `phase`.
    pub async fn reaches(&mut self, phase: Phase, patience: Duration) -> WorkerStatus {
        let deadline = Instant::now() + patience;
        loop {
            let worker = self.list().await.pop().expect("there is a worker");
            if worker.phase() == phase {
                return worker;
            }
            if Instant::now() > deadline {
                panic!("not {phase:?}: {worker:?}\n{}", self.logs(&worker.worker_id));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn logs(&self, id: &str) -> String {
        let dir = self.state_dir().join(id);
        ["keeper.log", "qemu.log", "console.log"]
            .map(|name| std::fs::read_to_string(dir.join(name)).unwrap_or_default())
            .join("\n")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A failed test must not leave workers behind. The test's own runtime cannot wait here.
        let socket = self.dir.path().join("driver.sock");
        let clean_up = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut driver = connect(&socket);
                let list = driver.list(ListRequest {}).await.map_err(std::io::Error::other)?;
                for worker in list.into_inner().workers {
                    let request = DeleteRequest { worker_id: worker.worker_id };
                    driver.delete(request).await.map_err(std::io::Error::other)?;
                }
                Ok::<_, std::io::Error>(())
            })
        });
        if let Ok(Err(e)) = clean_up.join() {
            eprintln!("workers may be left behind: {e}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(executable: &str, dir: &Path) -> Child {
    Command::new(executable)
        .arg("--socket")
        .arg(dir.join("driver.sock"))
        .arg("--state-dir")
        .arg(dir.join("workers"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A worker with user-data that names no reachable API server.
pub fn spec(id: &str, network: &Network, image_dir: &Path) -> WorkerSpec {
    let user_data = serde_json::json!({
        "version": 1, "node_name": id, "cluster_id": "c1",
        "network": {"mac": "52:54:00:00:00:05", "address": "10.0.1.5/16", "gateway": "10.0.0.1"},
        "api_server": {"url": "https://10.0.0.1:1", "ca_pem": "",
                       "bootstrap_token": "abcdef.0123456789abcdef"},
        "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/16", "dns_ip": "10.96.0.10",
        "dns_domain": "cluster.local",
        "kube_proxy": {"client_cert_pem": "", "client_key_pem": ""},
    });
    WorkerSpec {
        worker_id: id.into(),
        cluster_id: "c1".into(),
        netns: network.name.clone(),
        bridge: "br0".into(),
        mac: "52:54:00:00:00:05".into(),
        vcpus: 2,
        memory_mib: 1024,
        disk_gib: 4,
        image_dir: image_dir.to_string_lossy().into_owned(),
        user_data: user_data.to_string().into_bytes(),
    }
}

/// Runs a command that must succeed.
pub fn sh(command: &str) -> String {
    let Output { status, stdout, stderr } =
        Command::new("sh").args(["-c", command]).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Nothing of a deleted worker is left on the host.
pub fn assert_nothing_left(driver: &Driver, network: &Network, id: &str) {
    assert!(!driver.state_dir().join(id).exists());
    let links = network.links();
    assert_eq!(links.lines().count(), 2, "more than lo and br0 are left:\n{links}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*driver.dir.path().to_string_lossy()), "{mounts}");
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let group = hierarchy.path().join(format!("marina-worker-{id}"));
        assert!(!group.exists(), "{} is left", group.display());
    }
    let dir = driver.state_dir().join(id);
    let processes = sh("ps -eo args");
    assert!(!processes.contains(&*dir.to_string_lossy()), "a process is left:\n{processes}");
}
