//! One try of a probe: exec, HTTP, TCP or gRPC.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::node::Node;

/// Output of an exec probe that goes into the event, bytes.
const OUTPUT: usize = 10 * 1024;

/// A port by number, or by name among the container's ports.
///
/// # Errors
/// When there is no such port.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("invalid port: {port:?}"))
}

/// Runs a command in the container; its output is the error when it does not exit with 0.
///
/// # Errors
/// The command's output, or that it took too long.
pub async fn exec(
    node: &Node,
    id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    match node.runtime.exec_sync(id, command.to_vec(), timeout).await {
        Ok(answer) if answer.exit_code == 0 => Ok(()),
        Ok(answer) => {
            let mut output = [answer.stdout, answer.stderr].concat();
            output.truncate(OUTPUT);
            Err(String::from_utf8_lossy(&output).trim_end().to_owned())
        }
        Err(error) if error.is_timeout() => Err(format!(
            "command timed out: {command:?} timed out after {}",
            crate::config::duration::show(timeout)
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the probe once against the container `id` in a pod with address `ip`.
///
/// # Errors
/// Why it failed, as a sentence for the event.
pub async fn run(
    node: &Node,
    container: &Container,
    id: &str,
    ip: &str,
    probe: &Probe,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(node, id, action.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let network = async {
        if let Some(action) = &probe.http_get {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
            http::get(action, host, port(container, &action.port)?).await
        } else if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
            let port = port(container, &action.port)?;
            TcpStream::connect((host, port))
                .await
                .map(drop)
                .map_err(|e| format!("dial tcp {host}:{port}: {e}"))
        } else if let Some(action) = &probe.grpc {
            let port =
                u16::try_from(action.port).map_err(|_| format!("invalid port: {}", action.port))?;
            grpc::check(ip, port, action.service.as_deref().unwrap_or_default()).await
        } else {
            Err("missing probe handler".into())
        }
    };
    let late = || Err(format!("timed out after {}", crate::config::duration::show(timeout)));
    tokio::time::timeout(timeout, network).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_by_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(port(&container, &IntOrString::String("web".into())), Ok(8080));
        assert_eq!(port(&container, &IntOrString::String("81".into())), Ok(81));
        assert_eq!(port(&container, &IntOrString::Int(80)), Ok(80));
        assert!(port(&container, &IntOrString::String("nope".into())).is_err());
        assert!(port(&container, &IntOrString::Int(0)).is_err());
    }
}
