//! Clusters.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use marina_db::observed::ClusterPhase;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Body, IdempotencyKey, IfMatch, Path, Query, etag};
use crate::actions::{clusters as actions, kubeconfig as kubeconfigs};
use crate::identity::Caller;
use crate::input::cluster::NewCluster;
use crate::problem::{FieldError, Problem};
use crate::state::AppState;
use crate::view::{ClusterView, Page};

/// Items on a page when no limit is given, and at the most.
const PAGE: usize = 100;
/// Longest wait, seconds.
const WAIT_MAX: u64 = 300;

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Items on the page, 1 to 100.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only clusters in this phase.
    phase: Option<String>,
}

/// Clusters of the organization, by name.
#[utoipa::path(get, path = "/api/v1/clusters", tag = "clusters", params(ListParams),
    responses((status = 200, body = Page<ClusterView>), (status = 401, body = Problem),
        (status = 422, body = Problem)))]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(params): Query<ListParams>,
) -> Result<Json<Page<ClusterView>>, Problem> {
    let limit = params.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        let message = format!("must be 1 to {PAGE}, is {limit}.");
        return Err(Problem::invalid(vec![FieldError::new("limit", message)]));
    }
    let wanted = phase("phase", params.phase.as_deref())?;
    let after = params.cursor.unwrap_or_default();
    let mut items: Vec<_> = actions::list(&state, &caller)
        .await?
        .into_iter()
        .filter(|cluster| cluster.name > after)
        .filter(|cluster| wanted.is_none_or(|phase| phase.as_str() == cluster.phase))
        .take(limit + 1)
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// Create a cluster. The answer comes at once; the cluster is being made. Poll it, wait for it with
/// `?wait=ready`, or follow its events.
#[utoipa::path(post, path = "/api/v1/clusters", tag = "clusters", request_body = NewCluster,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "The same key and body again return the same cluster")),
    responses((status = 201, body = ClusterView), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewCluster>,
) -> Result<impl IntoResponse, Problem> {
    let cluster = actions::create(&state, &caller, &new, key.as_deref()).await?;
    let location = [(header::LOCATION, format!("/api/v1/clusters/{}", cluster.id))];
    Ok((StatusCode::CREATED, location, etag(cluster.generation), Json(cluster)))
}

/// A phase that a parameter names.
fn phase(field: &str, text: Option<&str>) -> Result<Option<ClusterPhase>, Problem> {
    text.map(str::parse).transpose().map_err(|_| {
        let names: Vec<_> = ClusterPhase::ALL.iter().map(|phase| format!("`{phase}`")).collect();
        let message = format!("must be one of {}.", names.join(", "));
        Problem::invalid(vec![FieldError::new(field, message)])
    })
}

/// Whether to wait.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct GetParams {
    /// Answer when the cluster is in this phase (`pending`, `provisioning`, `ready`, `degraded` or
    /// `deleting`), or when the time is over.
    wait: Option<String>,
    /// How long to wait at the most, in seconds, up to 300. Default: 60.
    timeout_s: Option<u64>,
}

/// One cluster, by id or name.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}", tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name"), GetParams),
    responses((status = 200, body = ClusterView), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
    Query(params): Query<GetParams>,
) -> Result<impl IntoResponse, Problem> {
    let cluster = match phase("wait", params.wait.as_deref())? {
        None => actions::get(&state, &caller, &cluster).await?,
        Some(phase) => {
            let seconds = params.timeout_s.unwrap_or(60).min(WAIT_MAX);
            let timeout = Duration::from_secs(seconds);
            actions::wait(&state, &caller, &cluster, phase, timeout).await?
        }
    };
    Ok((etag(cluster.generation), Json(cluster)))
}

/// Delete a cluster with everything in it. It is gone when `GET` answers 404.
#[utoipa::path(delete, path = "/api/v1/clusters/{cluster}", tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the cluster")),
    responses((status = 202, body = ClusterView), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem)))]
pub async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
    IfMatch(generation): IfMatch,
) -> Result<(StatusCode, Json<ClusterView>), Problem> {
    let cluster = actions::delete(&state, &caller, &cluster, generation).await?;
    Ok((StatusCode::ACCEPTED, Json(cluster)))
}

/// How long a kubeconfig is valid.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct KubeconfigParams {
    /// Hours, 1 to 2160 (90 days). Default: 168 (7 days).
    ttl_hours: Option<i64>,
}

/// A kubeconfig for an administrator of the cluster.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/kubeconfig", tag = "clusters",
    params(("cluster" = String, Path, description = "Id or name"), KubeconfigParams),
    responses((status = 200, body = String, content_type = "application/yaml"),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub async fn kubeconfig(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
    Query(params): Query<KubeconfigParams>,
) -> Result<impl IntoResponse, Problem> {
    let ttl = params.ttl_hours.unwrap_or(kubeconfigs::DEFAULT_TTL_HOURS);
    let (name, yaml) = kubeconfigs::mint(&state, &caller, &cluster, ttl).await?;
    Ok((kubeconfig_headers(&name), yaml))
}

/// Headers of a kubeconfig that is downloaded.
pub(crate) fn kubeconfig_headers(name: &str) -> [(header::HeaderName, String); 3] {
    [
        (header::CONTENT_TYPE, "application/yaml".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.kubeconfig\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ]
}
