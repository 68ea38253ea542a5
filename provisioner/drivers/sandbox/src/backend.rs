//! The sandbox as a backend of the local driver.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use driver_api::ProbeResponse;
use driver_local::{Backend, Started, Worker, link};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{cgroup, enter};

/// Interfaces of sandboxes on a bridge begin with this.
const LINK: &str = "mv";

/// The name of the card in the worker.
const CARD: &str = "eth0";

/// Workers as namespaces.
pub struct Sandbox;

impl Backend for Sandbox {
    fn probe(&self) -> ProbeResponse {
        let problem = problem();
        ProbeResponse {
            usable: problem.is_none(),
            message: problem.unwrap_or_else(|| {
                "workers share this host's kernel: for development and tests, not a security \
                 boundary"
                    .into()
            }),
            accelerator: "none".into(),
            ..ProbeResponse::default()
        }
    }

    fn prepare(&self, worker: &Worker) -> anyhow::Result<()> {
        link::check(&worker.record.netns, &worker.record.bridge)?;
        let image = worker.record.image_dir.join("rootfs");
        for dir in ["root", "upper", "work", "kubelet"] {
            fs::create_dir_all(worker.path(dir)).with_context(|| format!("creating {dir}"))?;
        }
        copy(&image.join("var/lib/containerd"), &worker.path("containerd"))?;
        copy(&image.join("var/log"), &worker.path("log"))
    }

    fn start(&self, worker: &Worker) -> anyhow::Result<Started> {
        let record = &worker.record;
        cgroup::create(&record.worker_id, record.vcpus, record.memory_mib)?;
        let mut child = spawn_enter(worker)?;
        match connect(worker, &mut child) {
            Ok(()) => Ok(Started { child }),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    fn clean_up(&self, worker: &Worker) -> anyhow::Result<()> {
        link::remove(&worker.record.netns, &link::name(LINK, &worker.record.worker_id))?;
        cgroup::remove(&worker.record.worker_id)
    }

    fn helper(&self, name: &str, worker: &Worker) -> Option<anyhow::Result<()>> {
        (name == "enter").then(|| enter::run(worker))
    }
}

/// Why this host cannot run sandboxes.
fn problem() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("sandbox workers need root: run the host agent as root".into());
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|l| l.trim_start_matches("nodev").trim() == "overlay") {
        return Some("the kernel has no overlay file system: load the module `overlay`".into());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("the program `ip` is missing: install the package iproute2".into());
    }
    if cgroup::hierarchies().is_empty() {
        return Some("no control groups are mounted below /sys/fs/cgroup".into());
    }
    None
}

/// A full copy that shares blocks where the file system can do that; never hard links, because the
/// worker writes into its copy.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp")
        .args(["-a", "--reflink=auto", "-T"])
        .arg(from)
        .arg(to)
        .output()
        .context("starting cp")?;
    if !output.status.success() {
        bail!("copying {}: {}", from.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Starts the worker's process 1, still on this side of everything but the process namespace.
fn spawn_enter(worker: &Worker) -> anyhow::Result<Child> {
    let own = File::open("/proc/self/ns/pid").context("opening the process namespace")?;
    unshare(CloneFlags::CLONE_NEWPID).context("making a process namespace")?;
    let child = Command::new("/proc/self/exe")
        .args(["helper", "enter"])
        .arg(&worker.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the worker's first process");
    // Later children of this process are the host's again.
    setns(own.as_fd(), CloneFlags::CLONE_NEWPID).context("returning to the process namespace")?;
    child
}

/// Waits for the worker's network namespace, wires it, and lets the worker go on.
fn connect(worker: &Worker, child: &mut Child) -> anyhow::Result<()> {
    let mut answer = [0; enter::READY.len()];
    child
        .stdout
        .as_mut()
        .context("the worker has no console")?
        .read_exact(&mut answer)
        .context("the worker's first process ended before it had its namespaces")?;
    let record = &worker.record;
    let name = link::name(LINK, &record.worker_id);
    // A link of the same name is left over from an earlier attempt.
    link::remove(&record.netns, &name)?;
    let pid = child.id().to_string();
    let netns = &record.netns;
    link::ip(
        netns,
        &[
            "link",
            "add",
            &name,
            "type",
            "veth",
            "peer",
            "name",
            CARD,
            "address",
            &record.mac,
            "netns",
            &pid,
        ],
    )?;
    link::ip(netns, &["link", "set", "dev", &name, "master", &record.bridge, "up"])?;
    let mut stdin = child.stdin.take().context("the worker has no standard input")?;
    stdin.write_all(enter::GO).context("letting the worker go on")
}
