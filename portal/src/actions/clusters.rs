//! Creating, reading and deleting clusters.

use std::time::Duration;

use marina_db::clusters::Cluster;
use marina_db::events::{NewEvent, Severity};
use marina_db::idempotency::Replay;
use marina_db::observed::ClusterPhase;
use marina_db::seal::hash_token;
use marina_db::versions::VersionState;
use marina_db::{ClusterId, DbError, Reader, now_ms};
use serde_json::json;
use tokio::time::Instant;

use super::{audit, check_generation, made_and_deleted};
use crate::identity::{Caller, Permission};
use crate::input::cluster::NewCluster;
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::ClusterView;

/// All clusters of the caller's organization, by name.
///
/// # Errors
/// 403.
pub async fn list(state: &AppState, caller: &Caller) -> Result<Vec<ClusterView>, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let clusters = tx.clusters_of(&caller.org.id).await?;
    let observed = tx.clusters_observed_of(&caller.org.id).await?;
    let view = |cluster: &Cluster| {
        let seen = observed.iter().find(|seen| seen.cluster_id == cluster.id).cloned();
        let seen =
            seen.unwrap_or_else(|| marina_db::observed::ClusterObserved::unseen(&cluster.id));
        ClusterView::new(cluster, &seen, &[])
    };
    Ok(clusters.iter().map(view).collect())
}

/// One cluster, by id or name.
///
/// # Errors
/// 404, 403.
pub async fn get(state: &AppState, caller: &Caller, id: &str) -> Result<ClusterView, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, id).await?;
    view(&mut tx, &cluster).await
}

/// One cluster as soon as its phase is `phase`, or as it is when the time is over.
///
/// # Errors
/// 404 when it is gone, 403.
pub async fn wait(
    state: &AppState,
    caller: &Caller,
    id: &str,
    phase: ClusterPhase,
    timeout: Duration,
) -> Result<ClusterView, Problem> {
    let deadline = Instant::now() + timeout;
    let mut bell = state.bell.subscribe();
    loop {
        let cluster = get(state, caller, id).await?;
        if cluster.phase == phase.as_str() {
            return Ok(cluster);
        }
        match tokio::time::timeout_at(deadline, bell.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(cluster),
        }
    }
}

async fn view(tx: &mut Reader, cluster: &Cluster) -> Result<ClusterView, Problem> {
    let observed = tx.cluster_observed(&cluster.id).await?;
    let members = tx.members_of(&cluster.id).await?;
    Ok(ClusterView::new(cluster, &observed, &members))
}

/// Creates a cluster. With an idempotency key, the same request again returns the same cluster.
///
/// # Errors
/// 422, 409 (also when the key's cluster was deleted since), 403.
pub async fn create(
    state: &AppState,
    caller: &Caller,
    new: &NewCluster,
    idempotency_key: Option<&str>,
) -> Result<ClusterView, Problem> {
    caller.may(Permission::Develop)?;
    let mut tx = state.db.write().await?;
    let versions = tx.versions().await?;
    let offered = versions.iter().filter(|version| version.state == VersionState::Offered);
    let names: Vec<String> = offered.clone().map(|version| version.name.clone()).collect();
    let default =
        offered.clone().find(|version| version.is_default).or_else(|| offered.clone().next_back());
    let default = default.map(|version| version.name.clone()).unwrap_or_default();
    let spec = new.check(&names, &default).map_err(Problem::invalid)?;

    let fingerprint = hash_token(&format!("cluster {}", json!(new)));
    if let Some(key) = idempotency_key
        && let Replay::Done(id) = tx.idempotency_key(&caller.org.id, key, &fingerprint).await?
    {
        return match tx.cluster(&ClusterId::from(id)).await {
            Ok(cluster) => view(&mut tx, &cluster).await,
            Err(DbError::NotFound { noun, name }) => Err(made_and_deleted(noun, &name)),
            Err(error) => Err(error.into()),
        };
    }
    let cluster = tx.create_cluster(&caller.org.id, &spec, &caller.user.login).await?;
    if let Some(key) = idempotency_key {
        tx.remember_key(&caller.org.id, key, &fingerprint, cluster.id.as_str()).await?;
    }
    let message = format!("{} asked for cluster {}.", caller.user.login, spec.name);
    tx.record_event(&event(&cluster, "ClusterRequested", message)).await?;
    audit(&mut tx, caller, "cluster.create", target(&cluster), json!(new)).await?;
    let view = view(&mut tx, &cluster).await?;
    tx.commit().await?;
    Ok(view)
}

/// Asks for the deletion of a cluster and everything in it. Again: no change.
///
/// # Errors
/// 404, 403, 412.
pub async fn delete(
    state: &AppState,
    caller: &Caller,
    id: &str,
    expected_generation: Option<i64>,
) -> Result<ClusterView, Problem> {
    caller.may(Permission::Develop)?;
    let mut tx = state.db.write().await?;
    let cluster = tx.cluster_of(&caller.org.id, id).await?;
    check_generation(expected_generation, cluster.generation)?;
    if cluster.deletion_requested_ms.is_some() {
        return view(&mut tx, &cluster).await;
    }
    let cluster = tx.request_cluster_deletion(&cluster.id).await?;
    let message = format!("{} asked for the deletion of the cluster.", caller.user.login);
    tx.record_event(&event(&cluster, "ClusterDeletionRequested", message)).await?;
    let age = json!({ "age_s": (now_ms() - cluster.created_ms) / 1000 });
    audit(&mut tx, caller, "cluster.delete", target(&cluster), age).await?;
    let view = view(&mut tx, &cluster).await?;
    tx.commit().await?;
    Ok(view)
}

pub(super) fn target(cluster: &Cluster) -> String {
    format!("cluster/{}", cluster.id)
}

pub(super) fn event(cluster: &Cluster, kind: &str, message: String) -> NewEvent {
    NewEvent {
        org_id: cluster.org_id.clone(),
        cluster_id: cluster.id.clone(),
        kind: kind.to_owned(),
        severity: Severity::Info,
        subject: format!("cluster/{}", cluster.spec.name),
        message,
    }
}
