//! Where a pod's subresource is found on its kubelet: address, port, path and query.
//!
//! Pure functions; source: the kubelet's HTTP API as upstream's API server calls it.

use machinery::Status;
use serde_json::Value;

/// Port of a kubelet whose Node says nothing.
const DEFAULT_PORT: u16 = 10250;

/// Upstream's default for `--kubelet-preferred-address-types`, with addresses before names: the
/// API server of a managed cluster can rarely resolve its nodes' names.
pub const PREFERRED_ADDRESSES: [&str; 5] =
    ["InternalIP", "Hostname", "InternalDNS", "ExternalDNS", "ExternalIP"];

/// Host and port of a Node's kubelet.
///
/// # Errors
/// 500 when the Node has no address of a preferred type.
pub fn endpoint<S: AsRef<str>>(node: &Value, preferred: &[S]) -> Result<(String, u16), Status> {
    let status = &node["status"];
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(DEFAULT_PORT);
    let addresses = status["addresses"].as_array();
    for wanted in preferred {
        for address in addresses.into_iter().flatten() {
            if address["type"] == wanted.as_ref()
                && let Some(host) = address["address"].as_str().filter(|a| !a.is_empty())
            {
                return Ok((host.to_owned(), port));
            }
        }
    }
    let wanted: Vec<_> = preferred.iter().map(AsRef::as_ref).collect();
    Err(Status::internal(format!("no preferred addresses found; known addresses: {wanted:?}")))
}

/// The container that a request on a pod means.
///
/// # Errors
/// 400 when it names none of the pod's containers, or none while the pod has several.
pub fn container(pod: &Value, query: &str) -> Result<String, Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |key: &str| -> Vec<&str> {
        let containers = pod["spec"][key].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).collect()
    };
    let main = names("containers");
    let all = ["initContainers", "containers", "ephemeralContainers"].map(names).concat();
    let asked = parameters(query).find(|(key, value)| key == "container" && !value.is_empty());
    match (asked, main.as_slice()) {
        (Some((_, name)), _) if all.contains(&name.as_str()) => Ok(name),
        (Some((_, name)), _) => {
            Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}")))
        }
        (None, [one]) => Ok((*one).to_owned()),
        (None, []) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        (None, _) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// Path and query of `pods/log`.
pub fn log_path(namespace: &str, pod: &str, container: &str, query: &str) -> String {
    let mut out = Query::new(format!("/containerLogs/{namespace}/{pod}/{container}"));
    for (key, value) in parameters(query) {
        match key.as_str() {
            "follow" | "previous" | "timestamps" if is_true(&value) => out.add(&key, "true"),
            "sinceSeconds" | "sinceTime" | "tailLines" | "limitBytes" | "stream"
                if !value.is_empty() =>
            {
                out.add(&key, &value);
            }
            _ => {}
        }
    }
    out.finish()
}

/// Which streams a remote command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client sends standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error. Never together with `tty`: a terminal has one output.
    pub stderr: bool,
    /// The command runs in a terminal, and resize events are sent.
    pub tty: bool,
}

impl Streams {
    /// Reads the query of `pods/exec` or `pods/attach`.
    ///
    /// # Errors
    /// 400 when no stream is asked for.
    pub fn from_query(query: &str) -> Result<Self, Status> {
        let mut streams = Self::default();
        for (key, value) in parameters(query) {
            let flag = match key.as_str() {
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                "tty" => &mut streams.tty,
                _ => continue,
            };
            *flag = is_true(&value);
        }
        if streams.tty {
            streams.stderr = false;
        }
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return Err(Status::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(streams)
    }
}

/// Path and query of `pods/exec` (`subresource` is `exec`) or `pods/attach` (`attach`).
pub fn command_path(
    subresource: &str,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> String {
    let mut out = Query::new(format!("/{subresource}/{namespace}/{pod}/{container}"));
    for (key, value) in parameters(query) {
        match key.as_str() {
            "stdin" if is_true(&value) => out.add("input", "1"),
            "stdout" if is_true(&value) => out.add("output", "1"),
            "stderr" if is_true(&value) => out.add("error", "1"),
            "tty" if is_true(&value) => out.add("tty", "1"),
            "command" => out.add("command", &value),
            _ => {}
        }
    }
    out.finish()
}

/// Path and query of `pods/portforward`.
pub fn port_forward_path(namespace: &str, pod: &str, query: &str) -> String {
    let mut out = Query::new(format!("/portForward/{namespace}/{pod}"));
    let ports: Vec<_> =
        parameters(query).filter(|(key, _)| key == "ports").map(|(_, value)| value).collect();
    if !ports.is_empty() {
        out.add("port", &ports.join(","));
    }
    out.finish()
}

/// The query parameters, decoded.
pub fn parameters(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match (first, digits.and_then(|d| u8::from_str_radix(d, 16).ok())) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A path with query parameters being added.
struct Query {
    text: String,
    separator: char,
}

impl Query {
    fn new(path: String) -> Self {
        Self { text: path, separator: '?' }
    }

    fn add(&mut self, key: &str, value: &str) {
        self.text.push(self.separator);
        self.separator = '&';
        self.text.push_str(key);
        self.text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    self.text.push(char::from(byte));
                }
                _ => self.text.push_str(&format!("%{byte:02X}")),
            }
        }
    }

    fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_commands_words_survive_the_way_to_the_kubelet() {
        let query = "command=sh&command=-c&command=echo+%24A%26b&stdin=true&stdout=true&tty=false\
                     &container=c";
        assert_eq!(
            command_path("exec", "ns", "p", "c", query),
            "/exec/ns/p/c?command=sh&command=-c&command=echo%20%24A%26b&input=1&output=1"
        );
        let streams = Streams::from_query(query).unwrap();
        assert!(streams.stdin && streams.stdout && !streams.tty && !streams.stderr);
    }

    #[test]
    fn logs_pass_only_what_the_kubelet_knows() {
        let query = "follow=true&tailLines=5&container=c&pretty=1&previous=false";
        assert_eq!(
            log_path("ns", "p", "c", query),
            "/containerLogs/ns/p/c?follow=true&tailLines=5"
        );
    }

    #[test]
    fn a_pod_of_two_containers_needs_a_choice() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "container=i").unwrap(), "i");
        let text = container(&pod, "").unwrap_err().message;
        assert_eq!(text, "a container name must be specified for pod p, choose one of: [i a b]");
        assert!(container(&pod, "container=x").is_err());
    }
}
