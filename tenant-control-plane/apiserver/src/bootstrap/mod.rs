//! What every cluster has: ensured at the start of each replica and from time to time, until the
//! server is told to stop.

mod definitions;
mod endpoints;
pub(crate) mod ensure;
mod groups;
mod objects;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::aggregation::availability;
use crate::api::Api;

/// How often what must be there is looked after.
const ROUND: Duration = Duration::from_secs(60);
/// Writes that are under way at once.
const PARALLEL: usize = 16;
/// How soon a failed first round is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often this replica's record is renewed and the `kubernetes` endpoints are compared.
const RENEW: Duration = Duration::from_secs(5);

/// Runs until the token is cancelled; then takes this replica out of the `kubernetes` endpoints.
pub async fn run(api: Arc<Api>, stop: CancellationToken) {
    tokio::spawn(definitions::run(api.clone(), stop.child_token()));
    tokio::spawn(groups::run(api.clone(), stop.child_token()));
    tokio::spawn(aggregate(api.clone(), stop.child_token()));
    tokio::spawn(availability::run(api.clone(), stop.child_token()));
    let mut record = endpoints::Record::new(&api);
    let mut due = tokio::time::Instant::now();
    let mut is_done = false;
    loop {
        if tokio::time::Instant::now() >= due {
            match round(&api).await {
                Ok(()) => {
                    if !std::mem::replace(&mut is_done, true) {
                        api.health.bootstrapped();
                        tracing::info!("everything that a cluster must have is there");
                    }
                    due += ROUND;
                }
                Err(error) => tracing::warn!(%error, "ensuring the cluster's own objects failed"),
            }
        }
        if let Err(error) = record.reconcile(&api).await {
            tracing::warn!(%error, "publishing this server's address failed");
        }
        let pause = if is_done { RENEW } else { RETRY };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Err(error) = record.withdraw(&api).await {
        tracing::warn!(%error, "withdrawing this server's address failed");
    }
}

/// Keeps aggregated ClusterRoles up to date as the roles that they select change.
async fn aggregate(api: Arc<Api>, stop: CancellationToken) {
    let roles = machinery::GroupResource::new("rbac.authorization.k8s.io", "clusterroles");
    let Some(cache) = api.caches.resource(&roles) else { return };
    let mut grown = cache.subscribe();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed() => if changed.is_err() { return },
        }
        // Changes come in crowds, above all at the start.
        tokio::time::sleep(RETRY).await;
        grown.mark_unchanged();
        if let Err(error) = ensure::aggregated_roles(&api).await {
            tracing::warn!(%error, "aggregating cluster roles failed");
        }
    }
}

async fn round(api: &Arc<Api>) -> Result<(), machinery::Status> {
    api.caches.catch_up().await?;
    let (namespaces, policy): (Vec<_>, Vec<_>) =
        auth::bootstrap_policy().into_iter().partition(|o| o["kind"] == "Namespace");
    for object in namespaces {
        ensure::present(api, object).await?;
    }
    // Each write waits for the store's disk; side by side they wait together.
    stream::iter(policy.into_iter().map(|object| ensure::policy(api, object)))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    stream::iter(objects::all(api).into_iter().map(|object| ensure::present(api, object)))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    ensure::data(api, objects::authentication_config(api)).await?;
    ensure::aggregated_roles(api).await?;
    api.services.repair().await
}
