//! The servers under test: etcd, kube-apiserver and kube-controller-manager, started as upstream's
//! `hack/make-rules/test-cmd.sh` starts them, without nodes and with everything allowed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::control::{self, Files, PORT};
use crate::mix::{Mix, Part};
use crate::network::{self, Network};
use crate::places::Places;
use crate::process::{self, Process, Spec};

/// How long a server may take to answer.
const READY_WITHIN: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);
/// Where the API server says it is; nothing in these tests goes there (RFC 5737).
const ADVERTISED: &str = "192.0.2.1";
const ETCD: &str = "http://127.0.0.1:2379";
/// Of kube-controller-manager.
const SECURE_PORT: u16 = 10257;
/// What upstream's scripts say to be root: a line of their `auth-tokens.csv`.
const TOKEN: &str = "admin-token";

/// Running servers. Gone when dropped. Start it from a thread that outlives it.
pub struct Plane {
    // In the order in which they go.
    running: BTreeMap<Part, Process>,
    network: Network,
    files: Files,
    places: Places,
    mix: Mix,
    name: String,
    dir: PathBuf,
    /// Upstream's data.
    testdata: PathBuf,
}

impl Plane {
    /// Starts servers in a network namespace named after `name`; their files are below `dir`, and
    /// upstream's scripts in `tree`.
    ///
    /// # Errors
    /// Something is not built or does not start.
    pub fn start(
        name: &str,
        mix: Mix,
        places: &Places,
        dir: &Path,
        tree: &Path,
    ) -> anyhow::Result<Self> {
        let mut plane = Self {
            running: BTreeMap::new(),
            network: Network::start(name)?,
            files: Files::write(&dir.join("files"))?,
            places: places.clone(),
            mix,
            name: name.to_owned(),
            dir: dir.to_owned(),
            testdata: tree.join("hack/testdata"),
        };
        control::put(&plane.kubeconfig(), &plane.kubeconfig_text())?;
        plane.fill()?;
        Ok(plane)
    }

    /// Starts all servers anew, with an empty store.
    ///
    /// # Errors
    /// One does not start.
    pub fn renew(&mut self) -> anyhow::Result<()> {
        // What depends on another goes first.
        for part in [Part::ControllerManager, Part::ApiServer, Part::Etcd] {
            self.running.remove(&part);
        }
        fs::remove_dir_all(self.data()).context("removing the store")?;
        self.fill()
    }

    /// What to say of a server that has ended.
    pub fn ended(&mut self) -> Option<String> {
        let ended = self.running.values_mut().find_map(|server| server.check().err());
        ended.map(|error| format!("{error:#}"))
    }

    /// Lets a command run where the servers can be reached.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn inside(&self, command: &mut Command) -> anyhow::Result<()> {
        process::enter(command, Some(&self.network.path()), None)
    }

    /// Where the servers' logs are.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(self.data()).context("making the store's directory")?;
        self.run(Part::Etcd)?;
        self.wait("etcd answers", |plane| Ok(plane.network.answers((Ipv4Addr::LOCALHOST, 2379))))?;
        self.run(Part::ApiServer)?;
        self.wait("kube-apiserver is ready", |plane| {
            // The namespace is one of the last things that it makes at its start.
            Ok(plane.kubectl(&["get", "--raw", "/readyz"], "")?.status.success()
                && plane.kubectl(&["get", "namespace", "kube-system"], "")?.status.success())
        })?;
        self.run(Part::ControllerManager)?;
        self.wait("kube-controller-manager answers", |plane| {
            Ok(plane.network.answers((Ipv4Addr::LOCALHOST, SECURE_PORT)))
        })?;
        self.make_node()
    }

    /// Some tests look at a Node; there is no kubelet to make one. An annotation gives it a field
    /// manager, which some of them look for. The condition is the one that a Node without a kubelet
    /// has after a minute.
    fn make_node(&self) -> anyhow::Result<()> {
        let condition = json!({
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
        });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "127.0.0.1", "annotations": {"lab.marina.dev/is-real": "no"}},
            "status": {"capacity": {"memory": "1Gi"}, "conditions": [condition]},
        });
        let answer = self.kubectl(&["create", "-f", "-"], &node.to_string())?;
        if !answer.status.success() {
            bail!("making a Node: {}", String::from_utf8_lossy(&answer.stderr).trim());
        }
        Ok(())
    }

    fn run(&mut self, part: Part) -> anyhow::Result<()> {
        let program = self.places.executable(part, self.mix.of(part))?;
        let mut spec = Spec::new(part.executable(), program);
        match part {
            Part::Etcd => self.etcd(&mut spec),
            Part::ApiServer => self.api_server(&mut spec),
            _ => self.controller_manager(&mut spec),
        }
        spec.netns = Some(self.network.path());
        let server = Process::start(spec, &network::name(&self.name), &self.logs())?;
        self.running.insert(part, server);
        Ok(())
    }

    fn etcd(&self, spec: &mut Spec) {
        spec.flags(&[
            ("data-dir", self.data().to_string_lossy().into_owned()),
            ("listen-client-urls", ETCD.to_owned()),
            ("advertise-client-urls", ETCD.to_owned()),
        ]);
    }

    fn api_server(&self, spec: &mut Spec) {
        let file = |name| self.files.path("kube-apiserver", name);
        let disabled = [
            "ServiceAccount",
            "DefaultStorageClass",
            "DefaultTolerationSeconds",
            "MutatingAdmissionWebhook",
            "ValidatingAdmissionWebhook",
            "StorageObjectInUseProtection",
        ];
        spec.flags(&[
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", PORT.to_string()),
            // There is no default route from which it could be told.
            ("advertise-address", ADVERTISED.to_owned()),
            ("etcd-servers", ETCD.to_owned()),
            ("authorization-mode", "RBAC,AlwaysAllow".to_owned()),
            ("enable-admission-plugins", "LimitRanger,ResourceQuota".to_owned()),
            ("disable-admission-plugins", disabled.join(",")),
            ("runtime-config", "api/v1".to_owned()),
            ("service-account-key-file", file("sa.pub")),
            ("service-account-signing-key-file", file("sa.key")),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-lookup", "true".to_owned()),
            ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            ("tls-cert-file", file("apiserver.crt")),
            ("tls-private-key-file", file("apiserver.key")),
            ("client-ca-file", self.testdata("ca/ca.crt")),
            ("token-auth-file", self.testdata("auth-tokens.csv")),
        ]);
    }

    fn controller_manager(&self, spec: &mut Spec) {
        spec.flags(&[
            ("kubeconfig", self.kubeconfig().to_string_lossy().into_owned()),
            ("leader-elect", "false".to_owned()),
            ("cluster-signing-cert-file", self.testdata("ca/ca.crt")),
            ("cluster-signing-key-file", self.testdata("ca/ca.key")),
        ]);
    }

    fn wait(
        &mut self,
        what: &str,
        is_so: impl Fn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !is_so(self)? {
            if let Some(ended) = self.ended() {
                bail!("{ended}");
            }
            if Instant::now() > deadline {
                bail!("waited in vain until {what}; logs: {}", self.logs().display());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn kubectl(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(self.places.upstream_tool("kubectl")?);
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.inside(&mut command)?;
        let mut child = command.spawn().context("starting kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        // It may end without having read everything.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().context("waiting for kubectl")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("files/kubeconfig")
    }

    fn kubeconfig_text(&self) -> String {
        let server = format!("https://127.0.0.1:{PORT}");
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": server,
                "certificate-authority": self.files.path("kube-apiserver", "ca.crt"),
            }}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            "current-context": "lab",
        });
        config.to_string()
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn testdata(&self, name: &str) -> String {
        self.testdata.join(name).to_string_lossy().into_owned()
    }
}
