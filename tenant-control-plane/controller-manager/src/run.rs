//! Starts the process: health server, leader election, then all enabled controllers.

use std::sync::Arc;

use anyhow::Context as _;
use component::client::Account;
use component::informer::Informers;
use component::serving::Health;
use component::{leader, serving};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::{Context, Running};
use crate::controllers::CONTROLLERS;
use crate::identity::{COMPONENT, Identities, Identity};
use crate::metrics;

/// Upstream's secure port.
const DEFAULT_PORT: u16 = 10257;

/// Runs until shutdown.
///
/// # Errors
/// When the configuration cannot be used, or leadership is lost.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let api = component::client::read_kubeconfig(&config.kubeconfig).await?;
    let manager = Identity::of_manager(&api)?;
    let seat = serving::start(&config.serving, DEFAULT_PORT, Health::new(), shutdown.clone())
        .await
        .context("starting the health server")?;
    let (client, elected) = (manager.client.clone(), config.leader.clone());
    leader::run_elected(client, COMPONENT, elected, seat, shutdown, |leading| async move {
        let accounts = config.account_per_controller;
        let identities = Identities::new(&api, manager.clone(), accounts, &leading)?;
        let context = Context {
            client: manager.client.clone(),
            bulk: manager.bulk.clone(),
            informers: Arc::new(Informers::new(manager.client.clone())),
            manager,
            config: Arc::new(config),
            shutdown: leading,
        };
        run_controllers(context, &identities).await
    })
    .await
}

async fn run_controllers(context: Context, identities: &Identities) -> anyhow::Result<()> {
    let mut started = Vec::new();
    for entry in CONTROLLERS.iter().filter(|entry| context.config.enabled.contains(&entry.name)) {
        let (own, account) = identities.of(entry.account);
        let own = Context { client: own.client, bulk: own.bulk, ..context.clone() };
        let work = (entry.start)(&own).with_context(|| format!("starting {}", entry.name))?;
        if let Some(work) = work {
            started.push((entry.name, account, work));
        }
    }
    context.informers.start(context.shutdown.clone()).await;
    if context.shutdown.is_cancelled() {
        return Ok(());
    }
    tracing::info!(controllers = started.len(), "caches are complete, controllers start");
    let mut running = JoinSet::new();
    for (name, account, work) in started {
        running.spawn(run_one(name, account, work, context.shutdown.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended.context("a controller panicked")?;
        if !context.shutdown.is_cancelled() {
            anyhow::bail!("a controller ended although nobody asked it to");
        }
    }
    Ok(())
}

/// Runs a controller once it has its token. Others do not wait for it.
async fn run_one(
    name: &'static str,
    account: Option<Account>,
    work: Running,
    shutdown: CancellationToken,
) {
    if let Some(account) = account {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = account.ready() => {}
        }
    }
    component::metrics::gauge(metrics::RUNNING, &[("name", name)], 1.0);
    work.await;
}
