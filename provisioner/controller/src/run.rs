//! The loop: read, sight, plan, execute, tell.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use marina_db::{
    Db, Writer,
    observed::{ClusterObserved, ClusterPhase},
};
use provisioner_plan::plan;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    agents::{Agents, HostView},
    config::ControllerConfig,
    desired::host_desired,
    execute::Executor,
    material::AGENT_RENEW_SECS,
    planner_view,
    region::Region,
    sight,
};

/// Every pass is repeated after this at the latest: some decisions depend on time alone.
const EVERY: Duration = Duration::from_secs(1);
/// The lease in the database; other replicas wait.
const LEASE: &str = "controller";
const LEASE_TTL_MS: i64 = 5_000;
/// The lease is renewed, and hosts' last contact written, this often.
const RENEW: Duration = Duration::from_secs(2);
/// Rounds of planning in one pass: each does what the one before made possible.
const MAX_ROUNDS: usize = 12;
/// Old rows are removed this often.
const PRUNE: Duration = Duration::from_secs(3600);
const KEEP_EVENTS_MS: i64 = 30 * 24 * 3_600_000;
const KEEP_KEYS_MS: i64 = 2 * 24 * 3_600_000;

/// Runs the controller until the token is cancelled.
pub async fn run(config: ControllerConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let db = Db::open(&config.database)
        .await
        .with_context(|| format!("--database {}", config.database.display()))?;
    let rung = Arc::new(Notify::new());
    let agents = Agents::new(config.tls.clone(), Arc::clone(&rung));
    tracing::info!(name = config.name, database = %config.database.display(),
        "controller is ready");
    let mut controller =
        Controller { config, db: db.clone(), agents, renewed: None, pruned: None, leading: false };
    let mut bell = 0;
    loop {
        match controller.pass().await {
            Ok(seen) => bell = seen,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a pass failed");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = rung.notified() => {}
            rang = db.wait_for_bell(bell, EVERY) => {
                rang.context("reading the doorbell")?;
            }
        }
    }
    controller.give_up().await
}

struct Controller {
    config: ControllerConfig,
    db: Db,
    agents: Agents,
    renewed: Option<Instant>,
    pruned: Option<Instant>,
    leading: bool,
}

impl Controller {
    /// One pass over everything. Returns the doorbell that it has seen.
    async fn pass(&mut self) -> anyhow::Result<i64> {
        let mut region = self.read().await?;
        self.agents.converge(&region.hosts);
        if !self.lead(&region).await? {
            return Ok(region.bell);
        }
        for _ in 0..MAX_ROUNDS {
            let views = self.agents.views();
            // A controller that has just started would call every host dead.
            if views.values().any(HostView::undecided) {
                return Ok(region.bell);
            }
            if !self.round(&region, &views).await? {
                break;
            }
            region = self.read().await?;
        }
        self.tell(&region);
        Ok(region.bell)
    }

    async fn read(&self) -> anyhow::Result<Region> {
        let mut tx = self.db.read().await?;
        Region::read(&mut tx, &self.config.sealer).await
    }

    /// Takes or keeps the lease; with it, writes when each host was last heard.
    async fn lead(&mut self, region: &Region) -> anyhow::Result<bool> {
        if self.leading && self.renewed.is_some_and(|at| at.elapsed() < RENEW) {
            return Ok(true);
        }
        let mut tx = self.db.write().await?;
        let leads = tx.acquire_lease(LEASE, &self.config.name, LEASE_TTL_MS).await?;
        if !leads {
            if std::mem::replace(&mut self.leading, false) {
                tracing::warn!("another controller leads now");
            }
            return Ok(false);
        }
        let views = self.agents.views();
        for host in &region.hosts {
            if views.get(host.id.as_str()).is_some_and(|view| view.connected) {
                tx.report_host(&host.id, &host.report).await?;
            }
        }
        if self.pruned.is_none_or(|at| at.elapsed() > PRUNE) {
            prune(&mut tx).await?;
            self.pruned = Some(Instant::now());
        }
        tx.commit().await?;
        if !std::mem::replace(&mut self.leading, true) {
            tracing::info!(name = self.config.name, "this controller leads");
        }
        self.renewed = Some(Instant::now());
        Ok(true)
    }

    /// Sights, plans and executes once. True when something was written.
    async fn round(
        &self,
        region: &Region,
        views: &BTreeMap<String, HostView>,
    ) -> anyhow::Result<bool> {
        let sightings = sight::compare(region, views);
        if !sightings.is_empty() {
            let mut tx = self.write().await?;
            sight::write(&mut tx, &sightings).await?;
            tx.commit().await?;
            return Ok(true);
        }
        let (intent, wrong) = planner_view::intent(region);
        let observed = planner_view::observed(region, &self.config.settings, views);
        let actions = plan(&intent, &observed);
        let renewals = expiring(region);
        let wrong = unreported(region, wrong);
        if actions.is_empty() && renewals.is_empty() && wrong.is_empty() {
            return Ok(false);
        }
        let mut tx = self.write().await?;
        let executor =
            Executor { region, sealer: &self.config.sealer, settings: &self.config.settings };
        for action in &actions {
            tracing::debug!(?action, "executing");
            executor
                .execute(&mut tx, action)
                .await
                .with_context(|| format!("executing {action:?}"))?;
        }
        for cluster in renewals {
            let pki = region.pki.get(cluster).context("cluster without CAs")?;
            executor.renew_agent_access(&mut tx, cluster, pki).await?;
        }
        for observed in wrong {
            tx.set_cluster_observed(&observed).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// A write transaction, if this controller still leads in it.
    async fn write(&self) -> anyhow::Result<Writer> {
        let mut tx = self.db.write().await?;
        let leads = tx.acquire_lease(LEASE, &self.config.name, LEASE_TTL_MS).await?;
        anyhow::ensure!(leads, "another controller has taken over");
        Ok(tx)
    }

    fn tell(&self, region: &Region) {
        for host in &region.hosts {
            match host_desired(region, &self.config.settings, host) {
                Ok(desired) => self.agents.give(host.id.as_str(), desired),
                Err(error) => tracing::error!(
                    host = host.name,
                    error = format!("{error:#}"),
                    "the host's desired state cannot be made"
                ),
            }
        }
    }

    /// Lets another replica lead at once.
    async fn give_up(&mut self) -> anyhow::Result<()> {
        if self.leading {
            let mut tx = self.db.write().await?;
            tx.release_lease(LEASE, &self.config.name).await?;
            tx.commit().await?;
        }
        tracing::info!("controller ends; tenants go on");
        Ok(())
    }
}

async fn prune(tx: &mut Writer) -> anyhow::Result<()> {
    let now = tx.now_ms();
    tx.prune_sessions().await?;
    tx.prune_events(now - KEEP_EVENTS_MS).await?;
    tx.prune_keys(now - KEEP_KEYS_MS).await?;
    Ok(())
}

/// Clusters whose agent's certificate ends soon.
fn expiring(region: &Region) -> Vec<&str> {
    let limit = region.now_ms / 1000 + AGENT_RENEW_SECS;
    region
        .pki
        .keys()
        .map(String::as_str)
        .filter(|id| region.agent_access.get(*id).is_none_or(|access| access.until < limit))
        .filter(|id| region.cluster(id).is_ok_and(|c| c.deletion_requested_ms.is_none()))
        .collect()
}

/// Clusters that cannot be planned, and do not say so yet.
fn unreported(region: &Region, wrong: Vec<(String, String)>) -> Vec<ClusterObserved> {
    wrong
        .into_iter()
        .filter(|(id, why)| region.observed.get(id).is_none_or(|seen| seen.message != *why))
        .map(|(id, message)| ClusterObserved {
            phase: ClusterPhase::Pending,
            message,
            ..ClusterObserved::unseen(&id.as_str().into())
        })
        .collect()
}
