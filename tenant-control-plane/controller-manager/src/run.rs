//! Starts the process: health server, leader election, then all enabled controllers.

use std::sync::Arc;

use anyhow::Context as _;
use component::informer::Informers;
use component::serving::Health;
use component::{leader, serving};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Context;
use crate::controllers::CONTROLLERS;
use crate::metrics;

/// Name in User-Agent, lease and events.
const COMPONENT: &str = "kube-controller-manager";
/// Upstream's secure port.
const DEFAULT_PORT: u16 = 10257;

/// Runs until shutdown.
///
/// # Errors
/// When the configuration cannot be used, or leadership is lost.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = component::client::from_kubeconfig(&config.kubeconfig, COMPONENT).await?;
    // A second connection, so that the garbage collector's many watches leave the first one free.
    let bulk = component::client::from_kubeconfig(&config.kubeconfig, COMPONENT).await?;
    let seat = serving::start(&config.serving, DEFAULT_PORT, Health::new(), shutdown.clone())
        .await
        .context("starting the health server")?;
    let elected = config.leader.clone();
    leader::run_elected(client.clone(), COMPONENT, elected, seat, shutdown, |leading| async move {
        let context = Context {
            informers: Arc::new(Informers::new(client.clone())),
            client,
            bulk,
            config: Arc::new(config),
            shutdown: leading,
        };
        run_controllers(context).await
    })
    .await
}

async fn run_controllers(context: Context) -> anyhow::Result<()> {
    let mut started = Vec::new();
    for entry in CONTROLLERS.iter().filter(|entry| context.config.enabled.contains(&entry.name)) {
        let work = (entry.start)(&context).with_context(|| format!("starting {}", entry.name))?;
        if let Some(work) = work {
            started.push((entry.name, work));
        }
    }
    context.informers.start(context.shutdown.clone()).await;
    if context.shutdown.is_cancelled() {
        return Ok(());
    }
    tracing::info!(controllers = started.len(), "caches are complete, controllers start");
    let mut running = JoinSet::new();
    for (name, work) in started {
        component::metrics::gauge(metrics::RUNNING, &[("name", name)], 1.0);
        running.spawn(work);
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a controller panicked")?;
        if !context.shutdown.is_cancelled() {
            anyhow::bail!("a controller ended although nobody asked it to");
        }
    }
    Ok(())
}
