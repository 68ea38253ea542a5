//! The programs that make a machine a node, and how each is started.
//!
//! To add one: a row in [`table`].

use std::ffi::CString;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::SigSet;

use crate::settings::path;
use crate::user_data::UserData;

/// One program to keep running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Also the name of its log file.
    pub name: &'static str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it is started only when containerd answers.
    pub needs_containerd: bool,
}

impl Service {
    /// `/var/log/<name>.log`.
    pub fn log(&self) -> PathBuf {
        PathBuf::from(format!("/var/log/{}.log", self.name))
    }

    /// Starts it, with its output appended to its log.
    ///
    /// # Errors
    /// The log cannot be opened or there is no room for a process.
    pub fn start(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .with_context(|| format!("opening {}", self.log().display()))?;
        // By way of this program, see `exec`.
        Command::new("/proc/self/exe")
            .args(["run-service", self.name])
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.name))
    }
}

/// Becomes the program `command`: undoes what node-init set up for itself (it blocks signals in
/// order to wait for them, and a started program inherits that) and makes the process group of the
/// service its own.
///
/// Returns only when it fails.
pub fn exec(name: &str, command: &[&str]) -> anyhow::Error {
    let become_it = || -> anyhow::Result<()> {
        SigSet::empty().thread_set_mask().context("unblocking signals")?;
        nix::unistd::setsid().context("making a session")?;
        // The node's own programs are the last to go when memory runs out.
        let score = if name == "kube-proxy" || name == "node-agent" { "-998" } else { "-999" };
        let _ = std::fs::write("/proc/self/oom_score_adj", score);
        let words: Vec<CString> = command
            .iter()
            .map(|word| CString::new(*word).context("an argument has a zero byte"))
            .collect::<anyhow::Result<_>>()?;
        let Some(program) = words.first() else { bail!("no program is named") };
        nix::unistd::execvp(program, &words)
            .with_context(|| format!("starting {}", program.to_string_lossy()))?;
        Ok(())
    };
    match become_it() {
        Err(e) => e,
        Ok(()) => anyhow::anyhow!("the program did not start"),
    }
}

/// Everything that runs on the node described by `data`, in the order of starting.
///
/// # Errors
/// The user-data has no usable address.
pub fn table(data: &UserData) -> anyhow::Result<Vec<Service>> {
    let service = |name, needs_containerd, words: &[&str]| Service {
        name,
        needs_containerd,
        command: words.iter().map(|w| (*w).to_owned()).collect(),
    };
    let node_ip = data.node_ip()?.to_string();
    let labels: Vec<String> = data.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let labels = labels.join(",");
    let endpoint = format!("unix://{}", path::CONTAINERD);
    let mut kubelet = vec![
        "/usr/local/bin/kubelet",
        "--config",
        path::KUBELET,
        "--bootstrap-kubeconfig",
        path::BOOTSTRAP,
        "--kubeconfig",
        path::KUBELET_KUBECONFIG,
        "--cert-dir",
        "/var/lib/kubelet/pki",
        "--container-runtime-endpoint",
        &endpoint,
        "--hostname-override",
        &data.node_name,
        "--node-ip",
        &node_ip,
        "--root-dir",
        "/var/lib/kubelet",
    ];
    if !labels.is_empty() {
        kubelet.extend(["--node-labels", &labels]);
    }
    if !data.provider_id.is_empty() {
        kubelet.extend(["--provider-id", &data.provider_id]);
    }
    let common = ["--kubeconfig", path::KUBE_PROXY, "--cluster-cidr", &data.pod_cidr];
    let mut proxy = vec!["/usr/local/bin/kube-proxy", "--proxy-mode", "nftables"];
    proxy.extend(common);
    proxy.extend(["--hostname-override", &data.node_name]);
    // The kernel sizes its table by its memory; a sandbox could not change it.
    proxy.extend(["--conntrack-max-per-core", "0", "--conntrack-min", "0"]);
    let mut agent = vec!["/usr/local/bin/node-agent", "--cni-conf-dir", "/etc/cni/net.d"];
    agent.extend(common);
    agent.extend(["--node-name", &data.node_name]);
    Ok(vec![
        service("containerd", false, &["/usr/bin/containerd"]),
        service("kubelet", true, &kubelet),
        service("kube-proxy", true, &proxy),
        service("node-agent", true, &agent),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_data::tests::example;

    #[test]
    fn the_kubelet_gets_its_flags_and_no_empty_ones() {
        let mut document = example();
        let flags = |document: &serde_json::Value| {
            let data = UserData::parse(document.to_string().as_bytes()).unwrap();
            table(&data).unwrap().into_iter().find(|s| s.name == "kubelet").unwrap().command
        };
        let all = flags(&document);
        let value = |name: &str| all[all.iter().position(|w| w == name).unwrap() + 1].clone();
        assert_eq!(value("--node-labels"), "a=b,marina.dev/node-group=g");
        assert_eq!(value("--node-ip"), "10.0.1.5");
        assert_eq!(value("--provider-id"), "marina://c1/demo-w1");
        document["labels"] = serde_json::json!({});
        document["provider_id"] = "".into();
        let few = flags(&document);
        assert!(!few.iter().any(|w| w.is_empty() || w == "--node-labels" || w == "--provider-id"));
    }

    #[test]
    fn containerd_is_first_and_waits_for_nothing() {
        let data = UserData::parse(example().to_string().as_bytes()).unwrap();
        let table = table(&data).unwrap();
        assert_eq!((table[0].name, table[0].needs_containerd), ("containerd", false));
        assert!(table[1..].iter().all(|s| s.needs_containerd));
    }
}
