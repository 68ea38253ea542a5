//! Starts the process: health server, leader election, then the engine.

use std::sync::Arc;

use anyhow::Context as _;
use component::informer::Informers;
use component::serving::Health;
use component::{Recorder, leader, serving};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::engine::{Engine, SCHEDULER_NAME, Writer, subscribe};

/// Name in User-Agent and lease.
const COMPONENT: &str = "kube-scheduler";
/// Upstream's secure port.
const DEFAULT_PORT: u16 = 10259;

/// Runs until shutdown.
///
/// # Errors
/// When the configuration cannot be used, or leadership is lost.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = component::client::from_kubeconfig(&config.kubeconfig, COMPONENT).await?;
    // The caches are filled before the election, so that a new leader starts at once.
    let informers = Arc::new(Informers::new(client.clone()));
    let (sender, messages) = mpsc::unbounded_channel();
    subscribe(&informers, &sender);
    let waiting = informers.clone();
    let health = Health::new().ready("informer-sync", move || match waiting.unsynced() {
        kinds if kinds.is_empty() => Ok(()),
        kinds => Err(format!("waiting for {}", kinds.join(", "))),
    });
    let seat = serving::start(&config.serving, DEFAULT_PORT, health, shutdown.clone())
        .await
        .context("starting the health server")?;
    let writer =
        Writer::new(client.clone(), Recorder::new(client.clone(), SCHEDULER_NAME, None), sender);
    let elected = CancellationToken::new();
    let standby = tokio::spawn(Engine::new(messages, writer).follow(elected.clone()));
    let (filling, stop) = (informers.clone(), shutdown.clone());
    let filled = tokio::spawn(async move { filling.start(stop).await });
    leader::run_elected(client, COMPONENT, config.leader, seat, shutdown, |leading| async move {
        filled.await.context("filling the caches")?;
        elected.cancel();
        let engine = standby.await.context("following the cluster")?;
        tracing::info!("caches are complete, scheduling starts");
        engine.run(leading).await;
        Ok(())
    })
    .await
}
