//! The pod's sandbox: its configuration for the runtime, and its creation.

use cri::pb;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::node::Node;
use crate::runtime::{labels, logs};
use crate::spec::{containers, dns, resources, security};

fn port(port: &ContainerPort) -> pb::PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => pb::Protocol::Udp,
        Some("SCTP") => pb::Protocol::Sctp,
        _ => pb::Protocol::Tcp,
    };
    pb::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}

/// The configuration. The same for every container of the pod: the runtime is given it again
/// with each.
pub fn config(node: &Node, pod: &Pod, attempt: u32) -> pb::PodSandboxConfig {
    let host_dns = std::fs::read_to_string(&node.config.resolv_conf).unwrap_or_default();
    let dns = dns::config(pod, &node.dns, &dns::parse(&host_dns));
    let host_network = containers::host_network(pod);
    let ports = containers::init(pod)
        .iter()
        .chain(containers::app(pod))
        .flat_map(|c| c.ports.iter().flatten());
    let port_mappings = if host_network { vec![] } else { ports.map(port).collect() };
    let sysctls = containers::spec(pod).security_context.as_ref().and_then(|c| c.sysctls.clone());
    let sysctls = sysctls
        .unwrap_or_default()
        .into_iter()
        .map(|s| (s.name.replace('/', "."), s.value))
        .collect();
    pb::PodSandboxConfig {
        metadata: Some(pb::PodSandboxMetadata {
            name: containers::name(pod).to_owned(),
            uid: containers::uid(pod).to_owned(),
            namespace: containers::namespace(pod).to_owned(),
            attempt,
        }),
        // On the node's network the pod has the node's name.
        hostname: if host_network { String::new() } else { dns::hostname(pod, &node.dns.domain).0 },
        log_directory: logs::dir_of(&node.config.log_dir, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings,
        labels: labels::sandbox(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(pb::LinuxPodSandboxConfig {
            cgroup_parent: resources::cgroup_parent(
                pod,
                node.config.cgroup_driver,
                &node.config.cgroup_root,
            ),
            security_context: Some(security::sandbox(pod)),
            sysctls,
            ..Default::default()
        }),
    }
}

/// What the pod asks for and this kubelet does not do. Going on without it would be worse than
/// not starting: the pod counts on it.
fn unsupported(pod: &Pod) -> Option<&'static str> {
    let spec = containers::spec(pod);
    if spec.host_users == Some(false) {
        return Some("user namespaces (hostUsers: false) are not supported on this node");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("dynamic resource allocation (resourceClaims) is not supported on this node");
    }
    None
}

/// Makes and starts the sandbox.
///
/// # Errors
/// The runtime's (or the network plugin's) answer.
pub async fn create(node: &Node, pod: &Pod, attempt: u32) -> Result<String, String> {
    if let Some(why) = unsupported(pod) {
        return Err(why.to_owned());
    }
    let config = config(node, pod, attempt);
    tokio::fs::create_dir_all(&config.log_directory)
        .await
        .map_err(|e| format!("making the log directory {}: {e}", config.log_directory))?;
    let handler = containers::spec(pod).runtime_class_name.clone().unwrap_or_default();
    let request = pb::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    let answer = node.runtime.run_pod_sandbox(request).await.map_err(|e| e.to_string())?;
    Ok(answer.pod_sandbox_id)
}
