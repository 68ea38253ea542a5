//! What has to be in a cluster before its nodes can join: the objects that Marina's host agent
//! keeps in every tenant.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, bail};
use provisioner_agent::tenant::objects::{self, Settings};
use serde_json::{Value, json};

use crate::control::{DNS_DOMAIN, DNS_IP};
use crate::lab::Lab;

/// Whose DNS server.
pub enum Dns {
    /// cluster-dns, as in every tenant.
    Ours,
    /// CoreDNS from this image.
    Upstream(String),
}

/// Creates them.
///
/// # Errors
/// The API server refuses one.
pub fn create(lab: &Lab, token: (&str, &str), dns: &Dns) -> anyhow::Result<()> {
    let settings = Settings { dns_ip: DNS_IP.into(), dns_domain: DNS_DOMAIN.into() };
    let mut items: Vec<Value> = objects::objects(&settings).into_iter().map(|o| o.value).collect();
    // A lab lives for hours at most.
    let expiration = "2999-01-01T00:00:00Z";
    items.push(objects::bootstrap_token(token.0, token.1, "", expiration));
    if let Dns::Upstream(image) = dns {
        for item in &mut items {
            if item["kind"] == "Deployment" {
                serve_with_coredns(item, image);
            }
        }
        items.push(corefile());
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let mut child = lab
        .kubectl_command()?
        .args(["create", "--validate=false", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
    stdin.write_all(list.to_string().as_bytes()).context("writing to kubectl")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for kubectl")?;
    if !output.status.success() {
        bail!("creating the cluster's objects: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Turns cluster-dns's Deployment into one of CoreDNS, same labels, same Service.
fn serve_with_coredns(deployment: &mut Value, image: &str) {
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "config", "configMap": {"name": "coredns"}}]);
    let container = &mut pod["containers"][0];
    container["image"] = image.into();
    container["command"] = json!(["/coredns"]);
    container["args"] = json!(["-conf", "/etc/coredns/Corefile"]);
    container["volumeMounts"] = json!([{"name": "config", "mountPath": "/etc/coredns"}]);
}

fn corefile() -> Value {
    let text = format!(
        ".:53 {{\n  errors\n  health :8080\n  ready :8181\n  kubernetes {DNS_DOMAIN} \
         in-addr.arpa ip6.arpa {{\n    pods insecure\n  }}\n  cache 5\n}}\n"
    );
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": text},
    })
}
