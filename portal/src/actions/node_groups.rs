//! Creating, scaling and deleting node groups.

use marina_db::clusters::Cluster;
use marina_db::idempotency::Replay;
use marina_db::node_groups::NodeGroup;
use marina_db::seal::hash_token;
use marina_db::{DbError, Reader, Writer};
use serde_json::json;

use super::clusters::event;
use super::{audit, check_generation, made_and_deleted};
use crate::identity::{Caller, Permission};
use crate::input::node_group::{NewNodeGroup, ScaleNodeGroup};
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::{NodeGroupView, NodeView};

/// All node groups of a cluster, by name.
///
/// # Errors
/// 404, 403.
pub async fn list(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
) -> Result<Vec<NodeGroupView>, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    let mut views = Vec::new();
    for group in tx.node_groups_of(&cluster.id).await? {
        views.push(view(&mut tx, &group).await?);
    }
    Ok(views)
}

/// One node group, by id or name.
///
/// # Errors
/// 404, 403.
pub async fn get(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
    group: &str,
) -> Result<NodeGroupView, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    let group = tx.node_group_of(&cluster.id, group).await?;
    view(&mut tx, &group).await
}

/// The workers of a cluster, oldest first.
///
/// # Errors
/// 404, 403.
pub async fn nodes(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
) -> Result<Vec<NodeView>, Problem> {
    caller.may(Permission::Read)?;
    let mut tx = state.db.read().await?;
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    Ok(tx.nodes_of(&cluster.id).await?.iter().map(NodeView::from).collect())
}

async fn view(tx: &mut Reader, group: &NodeGroup) -> Result<NodeGroupView, Problem> {
    let observed = tx.node_group_observed(&group.id).await?;
    Ok(NodeGroupView::new(group, observed.as_ref()))
}

/// Creates a node group. With an idempotency key, the same request again returns the same group.
///
/// # Errors
/// 422, 409 (also when the key's group was deleted since), 404, 403.
pub async fn create(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
    new: &NewNodeGroup,
    idempotency_key: Option<&str>,
) -> Result<NodeGroupView, Problem> {
    caller.may(Permission::Develop)?;
    let mut tx = state.db.write().await?;
    let cluster = living(&mut tx, caller, cluster).await?;
    let spec = new.check(cluster.spec.driver).map_err(Problem::invalid)?;
    let fingerprint = hash_token(&format!("node-group {} {}", cluster.id, json!(new)));
    if let Some(key) = idempotency_key
        && let Replay::Done(id) = tx.idempotency_key(&caller.org.id, key, &fingerprint).await?
    {
        return match tx.node_group_of(&cluster.id, &id).await {
            Ok(group) => view(&mut tx, &group).await,
            Err(DbError::NotFound { noun, name }) => Err(made_and_deleted(noun, &name)),
            Err(error) => Err(error.into()),
        };
    }
    let group = tx.create_node_group(&cluster.id, &spec).await?;
    if let Some(key) = idempotency_key {
        tx.remember_key(&caller.org.id, key, &fingerprint, group.id.as_str()).await?;
    }
    let what = format!("asked for node group {} with {} workers", spec.name, spec.desired);
    record(&mut tx, caller, &cluster, "NodeGroupRequested", &what).await?;
    audit(&mut tx, caller, "node-group.create", target(&cluster, &group), json!(new)).await?;
    let view = view(&mut tx, &group).await?;
    tx.commit().await?;
    Ok(view)
}

/// Changes how many workers are wanted.
///
/// # Errors
/// 422, 404, 403, 409, 412.
pub async fn scale(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
    group: &str,
    change: &ScaleNodeGroup,
    expected_generation: Option<i64>,
) -> Result<NodeGroupView, Problem> {
    caller.may(Permission::Develop)?;
    let count = change.check().map_err(Problem::invalid)?;
    let mut tx = state.db.write().await?;
    let cluster = living(&mut tx, caller, cluster).await?;
    let group = tx.node_group_of(&cluster.id, group).await?;
    check_generation(expected_generation, group.generation)?;
    if group.deletion_requested_ms.is_some() {
        return Err(Problem::conflict(format!("Node group {} is being deleted.", group.spec.name)));
    }
    let before = group.spec.desired;
    let group = tx.scale_node_group(&cluster.id, &group.id, count).await?;
    if before != count {
        let what = format!("scaled node group {} from {before} to {count}", group.spec.name);
        record(&mut tx, caller, &cluster, "NodeGroupScaled", &what).await?;
        let detail = json!({ "before": before, "after": count });
        audit(&mut tx, caller, "node-group.scale", target(&cluster, &group), detail).await?;
    }
    let view = view(&mut tx, &group).await?;
    tx.commit().await?;
    Ok(view)
}

/// Asks for the deletion of a node group and its workers. Again: no change.
///
/// # Errors
/// 404, 403, 412.
pub async fn delete(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
    group: &str,
    expected_generation: Option<i64>,
) -> Result<NodeGroupView, Problem> {
    caller.may(Permission::Develop)?;
    let mut tx = state.db.write().await?;
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    let group = tx.node_group_of(&cluster.id, group).await?;
    check_generation(expected_generation, group.generation)?;
    if group.deletion_requested_ms.is_some() {
        return view(&mut tx, &group).await;
    }
    let group = tx.request_node_group_deletion(&cluster.id, &group.id).await?;
    let what = format!("asked for the deletion of node group {}", group.spec.name);
    record(&mut tx, caller, &cluster, "NodeGroupDeletionRequested", &what).await?;
    audit(&mut tx, caller, "node-group.delete", target(&cluster, &group), json!({})).await?;
    let view = view(&mut tx, &group).await?;
    tx.commit().await?;
    Ok(view)
}

/// The cluster, unless it is being deleted.
async fn living(tx: &mut Writer, caller: &Caller, cluster: &str) -> Result<Cluster, Problem> {
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    match cluster.deletion_requested_ms {
        None => Ok(cluster),
        Some(_) => {
            Err(Problem::conflict(format!("Cluster {} is being deleted.", cluster.spec.name)))
        }
    }
}

async fn record(
    tx: &mut Writer,
    caller: &Caller,
    cluster: &Cluster,
    kind: &str,
    what: &str,
) -> Result<(), Problem> {
    let message = format!("{} {what}.", caller.user.login);
    tx.record_event(&event(cluster, kind, message)).await?;
    Ok(())
}

fn target(cluster: &Cluster, group: &NodeGroup) -> String {
    format!("cluster/{}/node-group/{}", cluster.id, group.id)
}
