//! A running cluster: everything together, and what is asked of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::control::{self, ADDRESS, Files, PORT};
use crate::mix::{Mix, Origin, Part};
use crate::network::{self, Network};
use crate::nodes::{self, Join, Nodes};
use crate::objects;
use crate::places::Places;
use crate::process::{self, Process};
use crate::{accounting, images};

/// How long the control plane may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(50);
/// The token by which nodes join; the lab is reachable from this machine only.
const TOKEN: (&str, &str) = ("labnod", "0123456789abcdef");

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short name, 1 to 8 of a-z and 0-9; labs of different names run side by side.
    pub name: String,
    /// Whose parts.
    pub mix: Mix,
    /// How many nodes, 0 to 9.
    pub nodes: u8,
    /// How many pods a node takes; [`nodes::MAX_PODS`] unless something else is measured.
    pub max_pods: u32,
}

/// A cluster of the lab. Gone when dropped. Start it from a thread that outlives it.
pub struct Lab {
    // In the order in which they go.
    nodes: Option<Nodes>,
    control: BTreeMap<Part, Process>,
    registry: Option<Process>,
    network: Network,
    files: Files,
    places: Places,
    dir: PathBuf,
    _lock: File,
}

impl Lab {
    /// Starts a cluster and waits until its nodes are Ready. `progress` is told each step.
    ///
    /// # Errors
    /// Something is not built, does not start, or a lab of this name runs already.
    pub fn start(
        options: &Options,
        places: &Places,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Self> {
        let images = match options.nodes {
            0 => None,
            _ => Some(images::Set::ensure(places, progress)?),
        };
        let dir = places.cache.join(format!("run-{}", options.name));
        let lock = lock(&dir, &options.name)?;
        remove_leftovers(options, places, &dir)?;
        progress("control plane");
        let network = Network::start(&options.name)?;
        let files = Files::write(&dir.join("files"))?;
        let mut lab = Self {
            nodes: None,
            control: BTreeMap::new(),
            registry: None,
            network,
            files,
            places: places.clone(),
            dir,
            _lock: lock,
        };
        lab.kubeconfigs()?;
        lab.run(&[Part::Etcd, Part::ApiServer], &options.mix)?;
        lab.wait_until_ready()?;
        // Upstream's end when their roles do not exist yet.
        lab.run(&[Part::ControllerManager, Part::Scheduler], &options.mix)?;
        if let Some(images) = images {
            lab.join(options, &images, progress)?;
        }
        Ok(lab)
    }

    fn run(&mut self, parts: &[Part], mix: &Mix) -> anyhow::Result<()> {
        let (netns, logs) = (self.network.path(), self.logs());
        let started = control::start(parts, mix, &self.places, &self.files, &netns, &logs)?;
        self.control.extend(started);
        Ok(())
    }

    fn kubeconfigs(&self) -> anyhow::Result<()> {
        let inside = format!("https://{ADDRESS}:{PORT}");
        self.files.admin_kubeconfig(&inside, &self.inner_kubeconfig())?;
        let outside = format!("https://127.0.0.1:{}", self.network.port);
        self.files.admin_kubeconfig(&outside, &self.kubeconfig())
    }

    fn join(
        &mut self,
        options: &Options,
        images: &images::Set,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        progress("nodes");
        let kubelet = self.places.executable(Part::Kubelet, options.mix.of(Part::Kubelet))?;
        let proxy = self.places.executable(Part::Proxy, options.mix.of(Part::Proxy))?;
        let image = images.node_image(&[
            ("usr/local/bin/kubelet", &kubelet),
            ("usr/local/bin/kube-proxy", &proxy),
        ])?;
        let dns = match options.mix.of(Part::Dns) {
            Origin::Ours => objects::Dns::Ours,
            Origin::Upstream => objects::Dns::Upstream(images.coredns().to_owned()),
        };
        objects::create(self, TOKEN, &dns)?;
        let (dir, logs) = (self.dir.clone(), self.dir.join("logs"));
        self.registry =
            Some(images.registry(&self.network.path(), &network::name(&options.name), &logs)?);
        let driver = self.places.ours.join("marina-driver-sandbox");
        let mut nodes = Nodes::start(&options.name, &driver, &dir, &logs)?;
        let kube_proxy = self.files.client("system:kube-proxy", None)?;
        let join = Join {
            ca_pem: &self.files.pki.cluster.cert_pem.clone(),
            bootstrap_token: &format!("{}.{}", TOKEN.0, TOKEN.1),
            kube_proxy: &kube_proxy,
            max_pods: options.max_pods,
        };
        for number in 1..=options.nodes {
            nodes.boot(number, &image, &join)?;
        }
        nodes.wait_until_up()?;
        self.nodes = Some(nodes);
        progress("waiting for Ready nodes");
        self.wait_for_nodes(options.nodes)
    }

    /// Waits until `count` nodes are Ready, and routes to their pods.
    fn wait_for_nodes(&mut self, count: u8) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check()?;
            let nodes = self.get("nodes")?;
            let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
            let ready = nodes.iter().filter(|node| is_ready(node)).count();
            let routed = nodes.iter().filter(|node| node["spec"]["podCIDR"].is_string()).count();
            if ready == usize::from(count) && routed == ready {
                return nodes.iter().try_for_each(|node| self.route(node));
            }
            if Instant::now() > deadline {
                let logs = self.logs();
                bail!("{ready} of {count} nodes are Ready. Their logs: {}", logs.display());
            }
            std::thread::sleep(POLL);
        }
    }

    fn route(&self, node: &Value) -> anyhow::Result<()> {
        let pods = node["spec"]["podCIDR"].as_str().context("a node without podCIDR")?;
        let addresses = node["status"]["addresses"].as_array().context("no addresses")?;
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
        let address = internal.and_then(|a| a["address"].as_str()).context("no InternalIP")?;
        self.network.add_route(pods, address)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check()?;
            // The default namespace is one of the last things that an API server makes.
            let answer = self.kubectl(&["get", "--raw", "/readyz"])?;
            if answer.status.success()
                && self.kubectl(&["get", "namespace", "kube-system"])?.status.success()
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = String::from_utf8_lossy(&answer.stderr).into_owned();
                bail!("the API server is not ready: {said}. Logs: {}", self.logs().display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// An error when a server of the control plane has ended.
    ///
    /// # Errors
    /// One has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.control.values_mut().try_for_each(Process::check)
    }

    /// kubectl, to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.kubectl_command()?;
        command.args(args).stdin(Stdio::null()).output().context("starting kubectl")
    }

    /// An unmodified kubectl, set up for this cluster.
    ///
    /// # Errors
    /// It is not built.
    pub fn kubectl_command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(self.places.upstream_tool("kubectl")?);
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// It fails; its message is in the error.
    pub fn get(&self, what: &str) -> anyhow::Result<Value> {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what.split(' '));
        let output = self.kubectl(&args)?;
        if !output.status.success() {
            bail!("kubectl get {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("kubectl printed no JSON")
    }

    /// Lets a command run inside the lab's network, with the kubeconfig of the inside.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn inside(&self, command: &mut Command) -> anyhow::Result<()> {
        command.env("KUBECONFIG", self.inner_kubeconfig());
        process::enter(command, Some(&self.network.path()), None)
    }

    /// An administrator's kubeconfig that works in the root namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The same for programs inside the lab's network.
    pub fn inner_kubeconfig(&self) -> PathBuf {
        self.dir.join("inner.kubeconfig")
    }

    /// Where the servers' logs are.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The first process of each node, whose namespaces and root file system are the node's.
    ///
    /// # Errors
    /// A node has ended.
    pub fn node_processes(&mut self) -> anyhow::Result<Vec<u32>> {
        self.nodes.as_mut().map_or(Ok(Vec::new()), Nodes::wait_until_up)
    }

    /// A server of the control plane.
    pub fn server(&mut self, part: Part) -> Option<&mut Process> {
        self.control.get_mut(&part)
    }
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The name of a lab: part of the names of its network and its control groups.
///
/// # Errors
/// Says what a name is.
pub fn parse_name(text: &str) -> Result<String, String> {
    let fine = (1..=8).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fine { Ok(text.to_owned()) } else { Err("must be 1 to 8 of a-z and 0-9".to_owned()) }
}

/// The lock of a lab's name: two labs of one name would share everything.
pub(crate) fn lock(dir: &Path, name: &str) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let path = dir.join("lock");
    let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    if lock.try_lock().is_err() {
        bail!("a lab named {name} runs already: stop it, or choose another name with --name");
    }
    Ok(lock)
}

/// Removes what a killed lab of this name left, but not its lock.
fn remove_leftovers(options: &Options, places: &Places, dir: &Path) -> anyhow::Result<()> {
    let name = &options.name;
    if dir.join("workers").exists() {
        let driver = places.ours.join("marina-driver-sandbox");
        // Deletes all sandboxes at its start.
        drop(Nodes::start(name, &driver, dir, &dir.join("logs"))?);
    }
    network::remove(name)?;
    accounting::remove(&network::name(name))?;
    clear(dir)
}

/// Empties the directory of a lab, but for its lock.
pub(crate) fn clear(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name() != "lock") {
        let path = entry.path();
        let removed = match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
        removed.with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The name of a node, for tests.
pub fn node(number: u8) -> String {
    nodes::name(number)
}
