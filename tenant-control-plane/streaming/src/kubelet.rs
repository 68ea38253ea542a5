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

/// The container that a request on a pod means, given the name that it asks for (or none).
///
/// # Errors
/// 400 when it names none of the pod's containers, or none while the pod has several.
pub fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |key: &str| -> Vec<&str> {
        let containers = pod["spec"][key].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).collect()
    };
    let main = names("containers");
    let all = ["initContainers", "containers", "ephemeralContainers"].map(names).concat();
    match (asked, main.as_slice()) {
        ("", [one]) => Ok((*one).to_owned()),
        ("", []) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}"
        ))),
        ("", _) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            all.join(" ")
        ))),
        (name, _) if all.contains(&name) => Ok(name.to_owned()),
        (name, _) => {
            Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}")))
        }
    }
}

/// What a request's parameters say of a switch: only no value, `false` and `0` mean no.
pub fn is_on(value: Option<&str>) -> bool {
    value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// Path and query of `pods/log`, given the request's parameters, of which the first of a name
/// counts.
pub fn log_path<'a>(
    namespace: &str,
    pod: &str,
    container: &str,
    parameter: impl Fn(&str) -> Option<&'a str>,
) -> String {
    let mut out = Query::new(format!("/containerLogs/{namespace}/{pod}/{container}"));
    for key in ["follow", "previous", "timestamps"] {
        if is_on(parameter(key)) {
            out.add(key, "true");
        }
    }
    for key in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = parameter(key).filter(|value| !value.is_empty()) {
            out.add(key, value);
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
    /// Of a `PodExecOptions` or `PodAttachOptions`.
    ///
    /// # Errors
    /// 400 when no stream is asked for.
    pub fn of(options: &Value) -> Result<Self, Status> {
        let is_on = |key: &str| options[key] == true;
        let mut streams = Self {
            stdin: is_on("stdin"),
            stdout: is_on("stdout"),
            stderr: is_on("stderr"),
            tty: is_on("tty"),
        };
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

/// Path and query of `pods/exec` (`subresource` is `exec`) or `pods/attach` (`attach`), given the
/// `PodExecOptions` or `PodAttachOptions`.
pub fn command_path(
    subresource: &str,
    namespace: &str,
    pod: &str,
    container: &str,
    options: &Value,
) -> String {
    let mut out = Query::new(format!("/{subresource}/{namespace}/{pod}/{container}"));
    for (key, name) in
        [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
    {
        if options[key] == true {
            out.add(name, "1");
        }
    }
    let words = options["command"].as_array().into_iter().flatten();
    words.filter_map(Value::as_str).for_each(|word| out.add("command", word));
    out.finish()
}

/// Path and query of `pods/portforward`, given the `PodPortForwardOptions`.
pub fn port_forward_path(namespace: &str, pod: &str, options: &Value) -> String {
    let mut out = Query::new(format!("/portForward/{namespace}/{pod}"));
    let ports = options["ports"].as_array().into_iter().flatten();
    let ports: Vec<_> = ports.map(ToString::to_string).collect();
    if !ports.is_empty() {
        out.add("port", &ports.join(","));
    }
    out.finish()
}

/// Encodes what has a meaning in a URL, but for the characters that are to keep theirs.
pub fn percent_encode(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ if kept.as_bytes().contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
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
        self.text.push_str(&percent_encode(value, ""));
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
        let options = json!({"command": ["sh", "-c", "echo $A&b"], "stdin": true, "stdout": true,
            "tty": false, "container": "c"});
        assert_eq!(
            command_path("exec", "ns", "p", "c", &options),
            "/exec/ns/p/c?input=1&output=1&command=sh&command=-c&command=echo%20%24A%26b"
        );
        let streams = Streams::of(&options).unwrap();
        assert!(streams.stdin && streams.stdout && !streams.tty && !streams.stderr);
        assert!(Streams::of(&json!({"stdout": "true"})).is_err());
        let terminal = Streams::of(&json!({"stdout": true, "stderr": true, "tty": true})).unwrap();
        assert!(terminal.tty && !terminal.stderr);
    }

    #[test]
    fn ports_are_forwarded_as_one_list() {
        let path = port_forward_path("ns", "p", &json!({"ports": [80, 443]}));
        assert_eq!(path, "/portForward/ns/p?port=80%2C443");
        assert_eq!(port_forward_path("ns", "p", &json!({})), "/portForward/ns/p");
    }

    #[test]
    fn logs_pass_only_what_the_kubelet_knows() {
        let parameter = |key: &str| match key {
            "follow" => Some(""),
            "tailLines" => Some("5"),
            "container" => Some("c"),
            "pretty" => Some("1"),
            "previous" => Some("False"),
            "timestamps" => Some("0"),
            _ => None,
        };
        assert_eq!(
            log_path("ns", "p", "c", parameter),
            "/containerLogs/ns/p/c?follow=true&tailLines=5"
        );
    }

    #[test]
    fn a_pod_of_two_containers_needs_a_choice() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "i").unwrap(), "i");
        let text = container(&pod, "").unwrap_err().message;
        assert_eq!(text, "a container name must be specified for pod p, choose one of: [i a b]");
        assert!(container(&pod, "x").is_err());
    }
}
