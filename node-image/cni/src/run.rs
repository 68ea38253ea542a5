//! Watches Nodes and makes the routes follow.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use component::Informers;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::flags::Flags;
use crate::{conflist, routes};

/// How often everything is compared again without a change of a Node.
const RESYNC: Duration = Duration::from_secs(60);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `shutdown`. Routes and configuration stay.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub async fn run(flags: Flags, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = component::client::from_kubeconfig(&flags.kubeconfig, "node-agent").await?;
    let informers = Informers::new(client);
    let nodes = informers.of::<Node>();
    let doorbell = Arc::new(Notify::new());
    let bell = doorbell.clone();
    nodes.on_change(move |change| {
        // Heartbeats change a Node's conditions every few seconds: only addresses concern us.
        let facts = |node: &Arc<Node>| (routes::pod_cidr(node), routes::internal_ip(node));
        if change.old.map(facts) != change.new.map(facts) {
            bell.notify_one();
        }
    });
    tokio::select! {
        () = informers.start(shutdown.clone()) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    loop {
        let nodes = nodes.list();
        let result = reconcile(&flags, &nodes).await;
        let pause = match result {
            Ok(()) => RESYNC,
            Err(error) => {
                tracing::warn!("trying again: {error:#}");
                RETRY
            }
        };
        tokio::select! {
            () = doorbell.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn reconcile(flags: &Flags, nodes: &[Arc<Node>]) -> anyhow::Result<()> {
    let nodes = || nodes.iter().map(AsRef::as_ref);
    let wanted = routes::wanted(nodes(), &flags.node_name, flags.cluster_cidr);
    let shown = tool("ip", &["-4", "route", "show", "proto", routes::PROTOCOL], "").await?;
    let batch = routes::batch(&routes::parse(&shown), &wanted);
    if !batch.is_empty() {
        tool("ip", &["-force", "-batch", "-"], &batch).await?;
        tracing::info!(routes = wanted.len(), "changed the routes to other nodes' pods");
    }
    tool("nft", &["-f", "-"], &masquerade(flags.cluster_cidr)).await?;
    // The configuration comes last: once it is there the node is ready for pods.
    let own = nodes().find(|node| node.metadata.name.as_deref() == Some(&flags.node_name));
    match own.and_then(routes::pod_cidr) {
        Some(cidr) => conflist::write(&flags.cni_conf_dir, cidr, flags.mtu),
        None => {
            tracing::info!(node = flags.node_name, "waiting for this node to get a pod CIDR");
            Ok(())
        }
    }
}

/// Pods that reach something outside the cluster do so with this node's address.
fn masquerade(cluster_cidr: Ipv4Net) -> String {
    format!(
        "add table ip marina-node
delete table ip marina-node
table ip marina-node {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {cluster_cidr} ip daddr != {cluster_cidr} oifname != \"cni0\" masquerade
  }}
}}
"
    )
}

async fn tool(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin
        .write_all(input.as_bytes())
        .await
        .with_context(|| format!("{program} stopped reading"))?;
    drop(stdin);
    let output = child.wait_with_output().await.with_context(|| format!("lost {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
