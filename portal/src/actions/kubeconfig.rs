//! Handing out kubeconfigs.

use provisioner_pki::ClusterPki;
use provisioner_pki::kubeconfig::{AdminKubeconfig, admin};
use serde_json::json;

use super::audit;
use super::clusters::target;
use crate::identity::{Caller, Permission};
use crate::input::check_range;
use crate::problem::Problem;
use crate::state::AppState;

/// Name of the sealed secret that holds a cluster's certificate authorities.
const PKI: &str = "pki";
/// Lifetime of a kubeconfig's certificate, in hours.
const TTL_HOURS: std::ops::RangeInclusive<i64> = 1..=24 * 90;
/// Lifetime when none is asked for.
pub const DEFAULT_TTL_HOURS: i64 = 24 * 7;

/// A kubeconfig whose user administers the cluster until it expires.
///
/// # Errors
/// 404, 403, 422, and 409 while the cluster has no address yet or is being deleted.
pub async fn mint(
    state: &AppState,
    caller: &Caller,
    cluster: &str,
    ttl_hours: i64,
) -> Result<(String, String), Problem> {
    caller.may(Permission::Develop)?;
    let mut errors = Vec::new();
    check_range("ttl_hours", ttl_hours, TTL_HOURS, " hours", &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mut tx = state.db.write().await?;
    let cluster = tx.cluster_of(&caller.org.id, cluster).await?;
    if cluster.deletion_requested_ms.is_some() {
        return Err(Problem::conflict(format!("Cluster {} is being deleted.", cluster.spec.name)));
    }
    let observed = tx.cluster_observed(&cluster.id).await?;
    let pki = tx.secret(&state.sealer, cluster.id.as_str(), PKI).await?;
    let not_yet = || {
        Problem::conflict(format!(
            "Cluster {} has no address yet ({}). Try again when it is ready.",
            cluster.spec.name, observed.message
        ))
    };
    let pki = pki.filter(|_| !observed.endpoint.is_empty()).ok_or_else(not_yet)?;
    let pki = ClusterPki::from_json(&pki).map_err(|e| Problem::internal(&e))?;
    let user = format!("marina:{}", caller.user.login);
    let spec = AdminKubeconfig {
        name: &cluster.spec.name,
        user: &user,
        endpoint: &observed.endpoint,
        server_name: &observed.server_name,
        valid_secs: ttl_hours * 3600,
    };
    let yaml = admin(&pki, &spec, tx.now_ms() / 1000).map_err(|e| Problem::internal(&e))?;
    let detail = json!({ "ttl_hours": ttl_hours });
    audit(&mut tx, caller, "kubeconfig.create", target(&cluster), detail).await?;
    tx.commit().await?;
    Ok((cluster.spec.name, yaml))
}
