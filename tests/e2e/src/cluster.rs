//! A cluster as its owner sees it: by kubectl.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::{Region, check, eventually, setting};

/// A cluster with a kubeconfig.
pub struct Cluster<'a> {
    /// Where it runs.
    pub region: &'a Region,
    /// Its name.
    pub name: String,
    kubeconfig: PathBuf,
}

impl<'a> Cluster<'a> {
    /// Creates a cluster, waits until it is ready, and takes its kubeconfig.
    pub fn create(region: &'a Region, name: &str, control_plane: &str, driver: &str) -> Self {
        let args = ["clusters", "create", name, "--wait", "--timeout", "120"];
        let choice = ["--control-plane", control_plane, "--driver", driver];
        region.marina(&[&args[..], &choice[..]].concat());
        Self::of(region, name)
    }

    /// An existing cluster.
    pub fn of(region: &'a Region, name: &str) -> Self {
        let kubeconfig = region.file(&format!("{name}.kubeconfig"));
        let file = kubeconfig.to_str().unwrap();
        region.marina(&["kubeconfig", name, "--file", file]);
        Self { region, name: name.to_owned(), kubeconfig }
    }

    /// A kubectl command.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(setting("KUBECTL"));
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command.env("HOME", self.region.file("home"));
        command
    }

    /// Runs kubectl and returns everything about it.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_command(args).output().expect("kubectl starts")
    }

    /// Runs kubectl, which must succeed, and returns its standard output.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {error}\n{}", self.region.logs());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl with standard input, which must succeed.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kubectl starts");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "kubectl {args:?} failed");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `kubectl get … -o json`, parsed; `Err` while the API cannot answer.
    pub fn get(&self, args: &[&str]) -> Result<serde_json::Value, String> {
        let output = self.try_kubectl(&[&["get"], args, &["-o", "json"]].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// Names of the Nodes that are Ready.
    pub fn ready_nodes(&self) -> Result<Vec<String>, String> {
        let nodes = self.get(&["nodes"])?;
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        let ready = nodes.iter().filter(|node| condition(node, "Ready"));
        Ok(ready.map(|node| text(&node["metadata"]["name"])).collect())
    }

    /// Running and ready pods with this label, as (name, node).
    pub fn ready_pods(&self, selector: &str) -> Result<Vec<(String, String)>, String> {
        let pods = self.get(&["pods", "-l", selector])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let living = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let ready = living.filter(|pod| condition(pod, "Ready"));
        Ok(ready
            .map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"])))
            .collect())
    }

    /// Waits for `count` ready pods and returns them.
    pub fn wait_for_pods(
        &self,
        selector: &str,
        count: usize,
        within: Duration,
    ) -> Vec<(String, String)> {
        eventually(&format!("{count} ready pods {selector}"), within, || {
            let pods = self.ready_pods(selector)?;
            check(pods.len() == count, format!("{pods:?}"))?;
            Ok(pods)
        })
    }

    /// Waits until exactly `count` Nodes are Ready.
    pub fn wait_for_nodes(&self, count: usize, within: Duration) -> Vec<String> {
        eventually(&format!("{count} ready nodes"), within, || {
            let nodes = self.ready_nodes()?;
            check(nodes.len() == count, format!("{nodes:?}"))?;
            Ok(nodes)
        })
    }
}

/// True when an object's condition has status True.
pub fn condition(object: &serde_json::Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == kind).any(|c| c["status"] == "True")
}

/// A JSON string.
pub fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
