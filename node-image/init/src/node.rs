//! The second stage: from mounted root to running node, and the loop that keeps it so.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::console::Console;
use crate::power::{self, Buttons};
use crate::services::{self, Service};
use crate::supervise::Supervisor;
use crate::system::System;
use crate::user_data::UserData;
use crate::{mounts, network, settings};

/// How often containerd's socket is tried while the node comes up.
const READY_CHECK: Duration = Duration::from_millis(20);
/// How often the sizes of the logs are looked at.
const LOG_CHECK: Duration = Duration::from_secs(30);
/// A log of this size is moved aside, replacing the one before it.
const LOG_LIMIT: u64 = 16 << 20;

/// What the kernel loads by itself only with udev around.
const MODULES: &[&str] = &["overlay", "br_netfilter", "button", "evdev", "nf_conntrack"];

/// Brings the node up and keeps it up until it is told to end.
///
/// # Errors
/// The node cannot come up: a mount, the user-data or the network is missing.
pub fn run(system: System, console: &Console) -> anyhow::Result<()> {
    // The kernel gives its first process no PATH to speak of.
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .context("waiting for signals")?;

    mounts::mount_all(system)?;
    set_path(path)?;
    if system == System::VirtualMachine {
        load_modules();
        grow_root();
    }
    let data = UserData::read(system)?;
    network::configure(system, &data)?;
    settings::write(system, &data)?;
    console.step(&format!("{} configured", data.node_name));

    let services = services::table(&data)?;
    let waits: Vec<bool> = services.iter().map(|s| s.needs_containerd).collect();
    let buttons = match system {
        System::VirtualMachine => Buttons::open(),
        System::Sandbox => Buttons::none(),
    };
    let start = Instant::now();
    let mut node = Node {
        supervisor: Supervisor::new(&waits),
        services,
        signals,
        buttons,
        console,
        start,
        containerd_ready: false,
        announced: false,
        logs_checked: start,
    };
    while !node.turn() {}
    console.step("stopping");
    power::stop_everything(&node.supervisor.running());
    console.step("stopped");
    power::end(system)
}

/// Programs are looked up along `PATH`, by this process and by those that it starts.
fn set_path(path: &str) -> anyhow::Result<()> {
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("PATH", path);
        std::env::set_var("HOME", "/root");
    }
    fs::create_dir_all("/run/lock").context("creating /run/lock")
}

struct Node<'a> {
    supervisor: Supervisor,
    services: Vec<Service>,
    signals: SignalFd,
    buttons: Buttons,
    console: &'a Console,
    start: Instant,
    containerd_ready: bool,
    /// Whether "node up" was said.
    announced: bool,
    logs_checked: Instant,
}

impl Node<'_> {
    /// One round: start what is due, wait for something to happen, take it in. Returns whether the
    /// node is to end.
    fn turn(&mut self) -> bool {
        self.check_containerd();
        self.start_due();
        if !self.announced && self.supervisor.all_started() {
            self.announced = true;
            self.console.step("node up");
        }
        self.limit_logs();
        self.wait();
        let end = self.told_to_end() | self.buttons.pressed();
        self.collect();
        end
    }

    fn check_containerd(&mut self) {
        if !self.containerd_ready && UnixStream::connect(settings::path::CONTAINERD).is_ok() {
            self.containerd_ready = true;
            self.console.step("containerd ready");
            self.supervisor.containerd_ready(self.start.elapsed());
        }
    }

    fn start_due(&mut self) {
        for index in self.supervisor.due(self.start.elapsed()) {
            let service = &self.services[index];
            match service.start() {
                Ok(child) => {
                    self.console.step(&format!("{} started", service.name));
                    self.supervisor.started(index, child.id(), self.start.elapsed());
                }
                Err(e) => {
                    self.console.step(&format!("{} not started: {e:#}", service.name));
                    self.supervisor.not_started(index, self.start.elapsed());
                }
            }
        }
    }

    fn wait(&self) {
        let mut descriptors = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(self.buttons.descriptors().map(|d| PollFd::new(d, PollFlags::POLLIN)));
        let mut longest = LOG_CHECK;
        if !self.containerd_ready {
            longest = READY_CHECK;
        }
        if let Some(at) = self.supervisor.next() {
            longest = longest.min(at.saturating_sub(self.start.elapsed()));
        }
        // Rounded up, so that a start is due when the wait is over.
        let milliseconds = u16::try_from(longest.as_millis() + 1).unwrap_or(u16::MAX);
        // An interrupted wait is a short one.
        let _ = poll(&mut descriptors, PollTimeout::from(milliseconds));
    }

    fn told_to_end(&self) -> bool {
        let mut end = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            end |= i32::try_from(signal.ssi_signo) != Ok(Signal::SIGCHLD as i32);
        }
        end
    }

    /// Collects every process that has ended: services, and orphans of containers.
    fn collect(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let how = match status {
                WaitStatus::StillAlive => return,
                WaitStatus::Exited(_, code) => format!("ended with {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
                _ => continue,
            };
            let Some(pid) = status.pid().and_then(|p| u32::try_from(p.as_raw()).ok()) else {
                continue;
            };
            if let Some((index, pause)) = self.supervisor.ended(pid, self.start.elapsed()) {
                let name = self.services[index].name;
                let pause = pause.as_secs_f64();
                self.console.step(&format!("{name} {how}, starts again in {pause}s"));
            }
        }
    }

    fn limit_logs(&mut self) {
        if self.logs_checked.elapsed() < LOG_CHECK {
            return;
        }
        self.logs_checked = Instant::now();
        for service in &self.services {
            // A log that cannot be shortened is looked at again next time.
            let _ = limit_log(&service.log(), LOG_LIMIT);
        }
    }
}

/// Moves a log's content aside when it is too large. The service keeps its open file: it appends,
/// so it goes on at the new end. Lines written during the copy are lost.
fn limit_log(path: &Path, limit: u64) -> std::io::Result<()> {
    if fs::metadata(path)?.len() > limit {
        fs::copy(path, path.with_extension("log.1"))?;
        fs::File::options().write(true).open(path)?.set_len(0)?;
    }
    Ok(())
}

fn load_modules() {
    // A kernel without one of them says so in what needs it, with more to say about why.
    let _ = Command::new("modprobe").arg("-a").arg("-q").args(MODULES).status();
}

/// Makes the file system as large as the disk, which the driver chooses per worker.
fn grow_root() {
    let Ok(sectors) = fs::read_to_string("/sys/class/block/vda/size") else { return };
    let disk = sectors.trim().parse::<u64>().unwrap_or(0) * 512;
    let Ok(root) = nix::sys::statvfs::statvfs("/") else { return };
    let used = u128::from(root.blocks()) * u128::from(root.fragment_size());
    // The file system's own tables are not counted in its blocks: an eighth covers them.
    if used + used / 8 < u128::from(disk) {
        // A node on a smaller disk than it could have is still a node.
        let _ = Command::new("resize2fs").arg("/dev/vda").output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_moved_aside_under_its_writer() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut writer = fs::File::options().create(true).append(true).open(&path).unwrap();
        writer.write_all(b"0123456789").unwrap();
        limit_log(&path, 10).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 10);
        writer.write_all(b"x").unwrap();
        limit_log(&path, 10).unwrap();
        writer.write_all(b"y").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"y");
        assert_eq!(fs::read(dir.path().join("a.log.1")).unwrap(), b"0123456789x");
    }
}
