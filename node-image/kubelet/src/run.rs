//! Puts the kubelet together and runs it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use component::Informer;
use component::events::Recorder;
use cri::{Runtime, pb};
use k8s_openapi::api::core::v1::Pod;
use kube::config::Kubeconfig;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::certs;
use crate::config::Config;
use crate::housekeeping;
use crate::node::allocations::Allocations;
use crate::node::machine::{self, Machine};
use crate::node::objects::Objects;
use crate::node::ports::Ports;
use crate::node::{Node, heartbeat, status};
use crate::pods::manager::Manager;
use crate::runtime::images::Images;
use crate::runtime::watch;
use crate::server;
use crate::spec::dns::ClusterDns;
use crate::spec::downward::NodeFacts;
use crate::status::writer::Writer;
use crate::volumes::tokens::Tokens;

/// Waits until the container runtime answers, and says its name.
async fn runtime_name(runtime: &Runtime, endpoint: &str) -> String {
    let mut told = false;
    loop {
        match runtime.version(pb::VersionRequest::default()).await {
            Ok(version) => {
                tracing::info!(
                    "the container runtime is {} {}",
                    version.runtime_name,
                    version.runtime_version
                );
                return version.runtime_name;
            }
            Err(error) if !told => {
                tracing::info!("waiting for the container runtime at {endpoint}: {error}");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The node's address: the configured one, or the one that reaches the API server.
fn node_ip(config: &Config) -> anyhow::Result<IpAddr> {
    if let Some(ip) = config.node_ip {
        return Ok(ip);
    }
    let kubeconfig = Kubeconfig::read_from(&config.kubeconfig).context("reading the kubeconfig")?;
    let server = kubeconfig.clusters.first().and_then(|c| c.cluster.as_ref()?.server.clone());
    let uri: http::Uri = server
        .context("the kubeconfig names no server")?
        .parse()
        .context("the server's address")?;
    let target = format!("{}:{}", uri.host().unwrap_or("127.0.0.1"), uri.port_u16().unwrap_or(443));
    machine::address_towards(&target)
        .with_context(|| format!("no route to {target}: set --node-ip"))
}

fn facts(config: &Config, machine: &Machine, ip: IpAddr) -> NodeFacts {
    let disk = machine::disk(&config.root_dir).unwrap_or_default();
    let [_, allocatable] = status::resources(config, machine, disk);
    let get = |name: &str| {
        allocatable.get(name).and_then(|q| q.0.parse::<machinery::quantity::Quantity>().ok())
    };
    NodeFacts {
        name: config.node_name.clone(),
        ips: vec![ip.to_string()],
        cpu_millis: get("cpu").map_or(0, |q| q.milli_value()),
        memory: get("memory").map_or(0, |q| q.value()),
    }
}

async fn assemble(
    config: Config,
    machine: &Machine,
    client: Client,
    ip: IpAddr,
) -> anyhow::Result<Node> {
    let runtime = Runtime::connect(&config.runtime_endpoint)?;
    let runtime_name = runtime_name(&runtime, &config.runtime_endpoint).await;
    let selector = format!("spec.nodeName={}", config.node_name);
    let own = watcher::Config::default().fields(&selector);
    let pods = Arc::new(Informer::new(Api::<Pod>::all(client.clone()), own));
    Ok(Node {
        facts: facts(&config, machine, ip),
        memory: machine.memory,
        dns: ClusterDns {
            servers: config.cluster_dns.clone(),
            domain: config.cluster_domain.clone(),
        },
        events: Recorder::new(client.clone(), "kubelet", Some(&config.node_name)),
        images: Images::new(runtime.clone(), config.parallel_pulls),
        objects: Objects::new(client.clone()),
        tokens: Tokens::default(),
        allocations: Allocations::load(&config.root_dir),
        ports: Ports::default(),
        writer: Writer::new(client.clone(), pods.clone()),
        pods,
        runtime,
        runtime_name,
        client,
        config,
    })
}

/// Runs until `stop`. Pods keep running when it ends: the next kubelet adopts them.
///
/// # Errors
/// When the node has no way to an identity, or a port or directory cannot be used.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.root_dir)
        .with_context(|| format!("making {}", config.root_dir.display()))?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        ready = certs::client::ensure(&config) => ready?,
    }
    let ip = node_ip(&config)?;
    let client = component::client::from_kubeconfig(&config.kubeconfig, "kubelet").await?;
    let machine = Machine::read()?;
    let node = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        node = assemble(config, &machine, client.clone(), ip) => Arc::new(node?),
    };
    let config = &node.config;
    if let Some(address) = config.healthz {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        tokio::spawn(server::health::run(listener, stop.clone()));
    }
    if let Some(address) = config.server {
        let pair = certs::serving::load(config, ip)?;
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        tracing::info!("serving on {address}");
        let serving = server::run(node.clone(), listener, pair, stop.clone());
        let cancel = stop.clone();
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!("the server ended: {error:#}");
                cancel.cancel();
            }
        });
    }
    if config.rotate_certificates {
        tokio::spawn(certs::client::rotate(config.clone(), client, stop.clone()));
    }
    tokio::spawn(heartbeat::run_status(node.clone(), machine, ip, stop.clone()));
    tokio::spawn(heartbeat::run_lease(node.clone(), stop.clone()));
    tokio::spawn(housekeeping::rotate_logs(node.clone(), stop.clone()));
    tokio::spawn(housekeeping::collect_images(node.clone(), stop.clone()));

    let manager = Manager::new(node.clone());
    let changes = manager.clone();
    node.pods.on_change(move |change| changes.on_change(change));
    node.pods.start(stop.clone());
    tokio::spawn(manager.clone().sweep(stop.clone()));
    let (bells, orphans) = (manager.clone(), manager.clone());
    watch::run(
        node.runtime.clone(),
        stop,
        move |uid| bells.ring(uid),
        move |world| {
            orphans.adopt_orphans(world);
            crate::metrics::running(world);
        },
    )
    .await;
    manager.stop();
    Ok(())
}
