//! QEMU as a backend of the local driver.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use driver_api::ProbeResponse;
use driver_local::{Backend, Started, Worker, link};
use nix::sched::{CloneFlags, setns};

use crate::accelerator::Prober;
use crate::machine::{self, DISK, EMULATOR, QMP};
use crate::qmp;

/// Interfaces of machines on a bridge begin with this.
const LINK: &str = "mt";

/// The image's own size: a worker's disk is an overlay over it and cannot be smaller.
const SMALLEST_DISK_GIB: u64 = 2;

/// Workers as virtual machines.
pub struct Qemu {
    prober: Prober,
}

impl Qemu {
    /// A backend that remembers in `state_dir` whether KVM works.
    pub fn new(state_dir: PathBuf) -> Self {
        Self { prober: Prober::new(state_dir.join("accelerator.json")) }
    }
}

impl Backend for Qemu {
    fn probe(&self) -> ProbeResponse {
        if let Some(problem) = problem() {
            return ProbeResponse { message: problem, ..ProbeResponse::default() };
        }
        let (accelerator, message) = match self.prober.known() {
            Some(verdict) => (verdict.accelerator.name(), verdict.reason),
            None => (
                "",
                "/dev/kvm exists; whether guests run with it is tried before the first worker \
                 boots"
                    .to_owned(),
            ),
        };
        ProbeResponse {
            usable: true,
            message,
            accelerator: accelerator.into(),
            ..ProbeResponse::default()
        }
    }

    fn prepare(&self, worker: &Worker) -> anyhow::Result<()> {
        if let Some(problem) = problem() {
            bail!(problem);
        }
        let record = &worker.record;
        link::check(&record.netns, &record.bridge)?;
        if record.disk_gib < SMALLEST_DISK_GIB {
            bail!("disk_gib: must be at least {SMALLEST_DISK_GIB}");
        }
        self.prober.verdict(&record.image_dir)?;
        let output = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(record.image_dir.join("disk.raw"))
            .arg(worker.path(DISK))
            .arg(format!("{}G", record.disk_gib))
            .output()
            .context("starting qemu-img (package qemu-utils)")?;
        if !output.status.success() {
            bail!("making the disk: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn start(&self, worker: &Worker) -> anyhow::Result<Started> {
        let record = &worker.record;
        let verdict = self.prober.verdict(&record.image_dir)?;
        let tap = link::name(LINK, &record.worker_id);
        link::remove(&record.netns, &tap)?;
        link::ip(&record.netns, &["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        link::ip(&record.netns, &["link", "set", "dev", &tap, "master", &record.bridge, "up"])?;
        let mut command = Command::new(EMULATOR);
        command.args(machine::arguments(record, verdict.accelerator, &tap));
        command.current_dir(&worker.dir).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let log = File::create(worker.path("qemu.log")).context("creating qemu.log")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let child = in_namespace(&record.netns, || {
            command.spawn().with_context(|| format!("starting {EMULATOR}"))
        })?;
        Ok(Started { child })
    }

    fn remark(&self, worker: &Worker) -> Option<String> {
        qmp::remark(&worker.dir, QMP)
    }

    fn clean_up(&self, worker: &Worker) -> anyhow::Result<()> {
        link::remove(&worker.record.netns, &link::name(LINK, &worker.record.worker_id))
    }
}

/// Why this host cannot run virtual machines.
fn problem() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("QEMU workers need root: run the host agent as root".into());
    }
    for (program, package) in
        [(EMULATOR, "qemu-system-x86"), ("qemu-img", "qemu-utils"), ("ip", "iproute2")]
    {
        if Command::new(program).arg("-V").stdin(Stdio::null()).output().is_err() {
            return Some(format!(
                "the program {program} is missing: install the package {package}"
            ));
        }
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun: load the module `tun`".into());
    }
    None
}

/// Starts a process in a network namespace. This process has one thread, and comes back.
fn in_namespace(
    netns: &str,
    start: impl FnOnce() -> anyhow::Result<Child>,
) -> anyhow::Result<Child> {
    let own = File::open("/proc/self/ns/net").context("opening the network namespace")?;
    let other = File::open(link::netns_path(netns))
        .with_context(|| format!("opening the network namespace {netns}"))?;
    setns(other.as_fd(), CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("entering the network namespace {netns}"))?;
    let child = start();
    setns(own.as_fd(), CloneFlags::CLONE_NEWNET).context("leaving the network namespace")?;
    child
}
