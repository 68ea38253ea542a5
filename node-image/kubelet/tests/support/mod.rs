//! A kubelet in this process between a fake API server and a fake container runtime.

#![allow(clippy::unwrap_used, missing_docs)]

pub mod api;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser as _;
use cri::fake::Fake;
use kubelet::config::Config;
use kubelet::flags::Flags;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use api::FakeApi;

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(15);

/// Waits until `probe` has something, looking often.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that a test works with.
pub struct World {
    dir: tempfile::TempDir,
    pub api: FakeApi,
    pub runtime: Fake,
    kubelet: Option<(CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>)>,
}

fn write(path: &Path, text: String) {
    std::fs::write(path, text).expect("the test's directory is writable");
}

impl World {
    /// Both fakes, and no kubelet yet.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let api = FakeApi::start().await;
        let runtime = Fake::default();
        runtime.serve(&dir.path().join("cri.sock")).expect("a socket in the test's directory");
        let server = api.url();
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
        write(&dir.path().join("kubeconfig"), kubeconfig.to_string());
        let config = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "port": 0, "healthzPort": 0, "podLogsDir": dir.path().join("logs"), "clusterDNS": ["10.96.0.10"]});
        write(&dir.path().join("config.yaml"), config.to_string());
        Self { dir, api, runtime, kubelet: None }
    }

    /// Where the fake runtime listens.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("cri.sock").display())
    }

    /// Starts a kubelet.
    pub fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let endpoint = self.endpoint();
        let args = [
            "kubelet",
            "--config",
            &path("config.yaml"),
            "--kubeconfig",
            &path("kubeconfig"),
            "--cert-dir",
            &path("pki"),
            "--root-dir",
            &path("kubelet"),
            "--container-runtime-endpoint",
            &endpoint,
            "--hostname-override",
            "n1",
            "--node-ip",
            "127.0.0.1",
        ];
        let config =
            Config::load(Flags::parse_from(args)).expect("the test's configuration is valid");
        let stop = CancellationToken::new();
        let task = tokio::spawn(kubelet::run::run(config, stop.clone()));
        self.kubelet = Some((stop, task));
    }

    /// Ends the kubelet; what it had started keeps running.
    pub async fn stop(&mut self) {
        let (stop, task) = self.kubelet.take().expect("a kubelet runs");
        stop.cancel();
        task.await.expect("the kubelet does not panic").expect("the kubelet ends well");
    }

    /// Creates a pod on this node.
    pub fn create_pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.api.create(
            "/api/v1/namespaces/default/pods",
            json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
    }

    /// The pod as the API has it.
    pub fn pod(&self, name: &str) -> Option<Value> {
        self.api.get(&format!("/api/v1/namespaces/default/pods/{name}"))
    }

    /// Waits for a phase.
    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        eventually(&format!("{name} is {phase}: {:?}", self.pod(name)), || {
            self.pod(name).filter(|p| p["status"]["phase"] == phase)
        })
        .await
    }

    /// How often a call to the runtime was made.
    pub fn calls(&self, call: &str) -> usize {
        self.runtime.calls().iter().filter(|c| c.starts_with(call)).count()
    }
}
