//! A lab with one node, and the kubelet on it as this machine sees it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use lab::lab::{Lab, Options};
use lab::mix::{Mix, Origin, Part};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::Bench;

/// Name of the lab: its directory, namespace and control group are its own.
const NAME: &str = "kubelet";
/// Upstream's default.
const MAX_PODS: u32 = 110;
/// How long a new cluster may take until pods can be created and its own pods run.
const QUIET_WITHIN: Duration = Duration::from_secs(180);
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(200);
/// The kubelet is at rest when it uses less than this, for a second.
const REST: Duration = Duration::from_millis(50);
/// In which the kernel counts processor time for `/proc`: USER_HZ, 100 per second wherever Rust runs.
const TICK: Duration = Duration::from_millis(10);

/// A cluster of upstream's with a node whose kubelet is of one origin. Gone when dropped.
pub struct Node {
    /// The administrator's client.
    pub client: Client,
    /// The process under test.
    pub kubelet: Kubelet,
    /// The node's first process.
    first: u32,
    lab: Lab,
}

impl Node {
    /// Starts it and waits until it is quiet.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(bench: &Bench, origin: Origin) -> anyhow::Result<Self> {
        let mix = Mix::all(Origin::Upstream).with(Part::Kubelet, origin);
        let options = Options { name: NAME.to_owned(), mix, nodes: 1, max_pods: MAX_PODS };
        let mut lab = Lab::start(&options, &bench.places, &mut |_| {})?;
        let first = *lab.node_processes()?.first().context("the lab has no node")?;
        let kubelet = Kubelet::find(first)?;
        let config = lab.kubeconfig();
        let client = component::client::from_kubeconfig(&config, "marina-bench");
        let client = bench.block_on(client)?;
        let mut node = Self { client, kubelet, first, lab };
        node.wait_until_quiet()?;
        node.settle(bench)?;
        Ok(node)
    }

    /// containerd's socket, as a path on this machine.
    pub fn runtime(&self) -> String {
        format!("unix://{}", self.path("/run/containerd/containerd.sock").display())
    }

    /// A path of the node, as a path on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(path.trim_start_matches('/'))
    }

    /// An error when a server of the control plane has ended.
    ///
    /// # Errors
    /// One has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.lab.check()
    }

    /// Waits until the controllers have made what a pod needs, and the cluster's own pods are ready.
    fn wait_until_quiet(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + QUIET_WITHIN;
        while !(self.is_there("serviceaccount default")
            && self.is_there("configmap kube-root-ca.crt")
            && self.dns_is_available()?)
        {
            self.check()?;
            if Instant::now() > deadline {
                bail!("the cluster's own pods do not run. Logs: {}", self.lab.logs().display());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_there(&self, what: &str) -> bool {
        self.lab.get(what).is_ok()
    }

    fn dns_is_available(&self) -> anyhow::Result<bool> {
        let listed = self.lab.get("deployments -n kube-system")?;
        let deployments = listed["items"].as_array().context("a list without items")?;
        let is_available = |deployment: &serde_json::Value| {
            deployment["status"]["availableReplicas"] == deployment["spec"]["replicas"]
        };
        Ok(!deployments.is_empty() && deployments.iter().all(is_available))
    }

    /// Waits until the kubelet is at rest: at least a second, at most 20.
    ///
    /// # Errors
    /// It has ended.
    pub fn settle(&self, bench: &Bench) -> anyhow::Result<()> {
        for _ in 0..20 {
            let before = self.kubelet.used()?;
            bench.block_on(tokio::time::sleep(Duration::from_secs(1)));
            if self.kubelet.used()? - before < REST {
                break;
            }
        }
        Ok(())
    }

    /// Processor time that the kubelet uses per second when nothing happens.
    ///
    /// # Errors
    /// It has ended.
    pub fn idle(&self, bench: &Bench) -> anyhow::Result<Duration> {
        let seconds = bench.either(20, 5);
        let before = self.kubelet.used()?;
        bench.block_on(tokio::time::sleep(Duration::from_secs(seconds.into())));
        Ok((self.kubelet.used()? - before) / seconds)
    }
}

/// The kubelet's process. It has no control group of its own that counts: the node's supervisor
/// starts it in the one of the whole node.
#[derive(Clone, Copy, Debug)]
pub struct Kubelet(u32);

impl Kubelet {
    /// The process of that name in the process namespace of `first`.
    ///
    /// # Errors
    /// There is none, or more than one.
    fn find(first: u32) -> anyhow::Result<Self> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
        let node = namespace(first).context("the node's first process has ended")?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            // A process that has just ended is none of the node's.
            let is_kubelet = fs::read_link(entry.path().join("exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "kubelet"));
            if is_kubelet && namespace(pid).is_ok_and(|own| own == node) {
                found.push(pid);
            }
        }
        match found[..] {
            [pid] => Ok(Self(pid)),
            _ => bail!("{} kubelets run on the node, not one", found.len()),
        }
    }

    /// Processor time of the process, without what it starts.
    ///
    /// # Errors
    /// It has ended.
    pub fn used(self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.0);
        let text = fs::read_to_string(&path).context("the kubelet has ended")?;
        let ticks = ticks(&text).with_context(|| format!("{path} has an unknown form"))?;
        Ok(TICK * ticks)
    }

    /// Proportional set size, bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn pss(self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.0);
        let text = fs::read_to_string(&path).context("the kubelet has ended")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        Ok(kib.with_context(|| format!("{path} has no Pss"))?.trim().parse::<u64>()? * 1024)
    }

    /// Stops it without its supervisor noticing, as long as the guard lives.
    ///
    /// # Errors
    /// It has ended.
    pub fn stop(self) -> anyhow::Result<Stopped> {
        let pid = Pid::from_raw(i32::try_from(self.0)?);
        kill(pid, Signal::SIGSTOP).context("stopping the kubelet")?;
        Ok(Stopped(pid))
    }
}

/// A kubelet that does nothing.
pub struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// User and system time from the text of `/proc/<pid>/stat`, ticks.
fn ticks(stat: &str) -> Option<u32> {
    // The name in parentheses may have spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    next()?.checked_add(next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "42 (a) (b) S 1 42 42 0 -1 4194560 500 9 0 0 123 45 7 8 20 0 12 0 99 1000 200";
        assert_eq!(ticks(stat), Some(168));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn this_program_has_used_time_and_memory() {
        let own = Kubelet(std::process::id());
        assert!(own.pss().unwrap() > 0);
        own.used().unwrap();
        assert!(Kubelet::find(std::process::id()).is_err());
    }
}
