//! The machine: which processors are used, what it is, and a network namespace of its own.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use lab::mix::{Origin, Part};
use lab::places::Places;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processors {
    /// The client, and whatever both sides share.
    pub client: usize,
    /// The server under test, alone.
    pub server: usize,
}

impl Processors {
    /// The first and the last processor that this process may use.
    ///
    /// # Errors
    /// There is only one.
    pub fn choose() -> anyhow::Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0)).context("reading the affinity")?;
        let usable: Vec<usize> =
            (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
        match usable[..] {
            [client, .., server] => Ok(Self { client, server }),
            _ => bail!("the client and the server need a processor each; this machine has one"),
        }
    }

    /// True when both are threads of one core, which then share its execution units.
    pub fn share_a_core(self) -> bool {
        let path = format!("/sys/devices/system/cpu/cpu{}/topology/core_cpus_list", self.client);
        let list = fs::read_to_string(path).unwrap_or_default();
        list.trim().split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) => (first..=last).contains(&self.server),
                _ => false,
            }
        })
    }
}

/// Keeps the calling thread, and all that it starts from now on, on a processor.
///
/// # Errors
/// There is no such processor.
pub fn stay_on(processor: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).with_context(|| format!("processor {processor}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("processor {processor}"))
}

/// Lets the calling thread, and all that it starts from now on, use every processor between the
/// client's and the server's: for subjects that measure more than one server.
///
/// # Errors
/// The kernel refuses.
pub fn use_all(processors: Processors) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for processor in processors.client..=processors.server {
        set.set(processor).with_context(|| format!("processor {processor}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("using all processors")
}

/// Moves the calling thread, and all that it starts from now on, into a new network namespace. The
/// kernel removes it with its last process.
///
/// # Errors
/// Not permitted, or `ip` fails.
pub fn enter_own_network() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (as root)")?;
    ip(&["link", "set", "lo", "up"])
}

/// Runs `ip` in this program's network namespace.
///
/// # Errors
/// It fails.
pub fn ip(args: &[&str]) -> anyhow::Result<()> {
    run("ip", args)
}

/// Runs a program that prints only when something is wrong.
///
/// # Errors
/// It fails.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", args.join(" "), said.trim());
    Ok(())
}

/// One line about processors, memory and kernel.
pub fn describe(processors: Processors) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let model = value_of(&cpu_info, "model name").unwrap_or("unknown processor");
    let count = cpu_info.lines().filter(|line| line.starts_with("processor")).count();
    let memory_info = read("/proc/meminfo");
    let memory = value_of(&memory_info, "MemTotal").and_then(|text| text.strip_suffix(" kB"));
    let gib =
        memory.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let Processors { client, server } = processors;
    let shared = if processors.share_a_core() { ", threads of one core" } else { "" };
    format!(
        "{count} processors {model} (client on {client}, server on {server}{shared}), \
         {gib:.0} GiB, Linux {}",
        kernel.trim()
    )
}

/// The value of a `name : value` line.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
}

/// What an executable says of its version: the first line.
pub fn version(places: &Places, part: Part, origin: Origin) -> String {
    let Ok(path) = places.executable(part, origin) else { return "not built".to_owned() };
    let output = Command::new(path).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first = text.ok().and_then(|text| text.lines().next().map(str::to_owned));
    first.unwrap_or_else(|| "unknown version".to_owned())
}

/// The commit that is checked out here, with `+` when files differ from it.
pub fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { hash } else { format!("{hash}+") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: AMD EPYC\nMemTotal:       1024 kB\n";
        assert_eq!(value_of(text, "model name"), Some("AMD EPYC"));
        assert_eq!(value_of(text, "MemTotal"), Some("1024 kB"));
        assert_eq!(value_of(text, "name"), None);
    }
}
