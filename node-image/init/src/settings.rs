//! The files that node-init writes for the node's programs. JSON is YAML, so the configuration
//! files are written as JSON.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::system::System;
use crate::user_data::UserData;

/// Where they are; programs get these paths as flags.
pub mod path {
    /// The cluster's certificate authority.
    pub const CA: &str = "/etc/kubernetes/ca.crt";
    /// `KubeletConfiguration`.
    pub const KUBELET: &str = "/etc/kubernetes/kubelet.yaml";
    /// Good for asking for a certificate, nothing else.
    pub const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap.kubeconfig";
    /// Used by kube-proxy and node-agent.
    pub const KUBE_PROXY: &str = "/etc/kubernetes/kube-proxy.kubeconfig";
    /// kube-proxy's client certificate.
    pub const KUBE_PROXY_CERT: &str = "/etc/kubernetes/kube-proxy.crt";
    /// Its private key.
    pub const KUBE_PROXY_KEY: &str = "/etc/kubernetes/kube-proxy.key";
    /// The kubelet writes it when it has a certificate.
    pub const KUBELET_KUBECONFIG: &str = "/var/lib/kubelet/kubeconfig";
    /// containerd's socket.
    pub const CONTAINERD: &str = "/run/containerd/containerd.sock";
}

/// Every file with its mode and content.
pub fn files(system: System, data: &UserData) -> Vec<(&'static str, u32, String)> {
    let bootstrap = kubeconfig(data, json!({"token": data.api_server.bootstrap_token}));
    let proxy = kubeconfig(
        data,
        json!({"client-certificate": path::KUBE_PROXY_CERT, "client-key": path::KUBE_PROXY_KEY}),
    );
    vec![
        (path::CA, 0o644, data.api_server.ca_pem.clone()),
        (path::KUBELET, 0o600, pretty(&kubelet(system, data))),
        (path::BOOTSTRAP, 0o600, pretty(&bootstrap)),
        (path::KUBE_PROXY, 0o600, pretty(&proxy)),
        (path::KUBE_PROXY_CERT, 0o600, data.kube_proxy.client_cert_pem.clone()),
        (path::KUBE_PROXY_KEY, 0o600, data.kube_proxy.client_key_pem.clone()),
    ]
}

/// Writes [`files`], each with its final mode from the start.
///
/// # Errors
/// A file cannot be written.
pub fn write(system: System, data: &UserData) -> anyhow::Result<()> {
    for (path, mode, text) in files(system, data) {
        if let Some(dir) = Path::new(path).parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn kubeconfig(data: &UserData, user: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "marina",
            "cluster": {"server": data.api_server.url, "certificate-authority": path::CA},
        }],
        "users": [{"name": "node", "user": user}],
        "contexts": [{"name": "marina", "context": {"cluster": "marina", "user": "node"}}],
        "current-context": "marina",
    })
}

fn kubelet(system: System, data: &UserData) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": path::CA},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [data.dns_ip],
        "clusterDomain": data.dns_domain,
        "containerRuntimeEndpoint": format!("unix://{}", path::CONTAINERD),
        // A sandbox has the control groups of its host, and those may be version 1.
        "failCgroupV1": false,
        "failSwapOn": false,
        "maxPods": data.max_pods,
        "registerWithTaints": data.taints,
        "resolvConf": "/etc/resolv.conf",
        "rotateCertificates": true,
    });
    if system == System::Sandbox {
        // The disk is the host's: what is free on it says nothing about the node.
        config["imageGCHighThresholdPercent"] = 100.into();
        config["evictionHard"] = json!({
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        });
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_data::tests::example;

    #[test]
    fn the_files_carry_the_user_data_and_secrets_are_private() {
        let data = UserData::parse(example().to_string().as_bytes()).unwrap();
        let files = files(System::VirtualMachine, &data);
        let text = |path: &str| files.iter().find(|f| f.0 == path).unwrap().2.clone();
        let kubelet: Value = serde_json::from_str(&text(path::KUBELET)).unwrap();
        assert_eq!(kubelet["maxPods"], 50);
        assert!(kubelet["evictionHard"].is_null(), "a machine looks after its own disk");
        assert_eq!(kubelet["clusterDNS"][0], "10.96.0.10");
        assert_eq!(kubelet["registerWithTaints"][0]["effect"], "NoSchedule");
        let bootstrap: Value = serde_json::from_str(&text(path::BOOTSTRAP)).unwrap();
        assert_eq!(bootstrap["users"][0]["user"]["token"], "abcdef.0123456789abcdef");
        assert_eq!(bootstrap["clusters"][0]["cluster"]["server"], "https://10.0.0.1:7001");
        for (path, mode, _) in &files {
            assert!(*mode == 0o600 || *path == path::CA, "{path} is readable by others");
        }
    }
}
