//! Node groups and their workers.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

use super::extract::{Body, IdempotencyKey, IfMatch, Path, etag};
use crate::actions::node_groups as actions;
use crate::identity::Caller;
use crate::input::node_group::{NewNodeGroup, ScaleNodeGroup};
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::{NodeGroupView, NodeView, Page};

/// Node groups of a cluster, by name.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/node-groups", tag = "node groups",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, body = Page<NodeGroupView>), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
) -> Result<Json<Page<NodeGroupView>>, Problem> {
    let items = actions::list(&state, &caller, &cluster).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// Create a node group. Its workers boot and join by themselves.
#[utoipa::path(post, path = "/api/v1/clusters/{cluster}/node-groups", tag = "node groups",
    request_body = NewNodeGroup,
    params(("cluster" = String, Path, description = "Id or name"),
        ("Idempotency-Key" = Option<String>, Header,
        description = "The same key and body again return the same node group")),
    responses((status = 201, body = NodeGroupView), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem)))]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(new): Body<NewNodeGroup>,
) -> Result<impl IntoResponse, Problem> {
    let group = actions::create(&state, &caller, &cluster, &new, key.as_deref()).await?;
    let path = format!("/api/v1/clusters/{cluster}/node-groups/{}", group.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, path)], etag(group.generation), Json(group)))
}

/// One node group, by id or name.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/node-groups/{group}", tag = "node groups",
    params(("cluster" = String, Path, description = "Id or name"),
        ("group" = String, Path, description = "Id or name")),
    responses((status = 200, body = NodeGroupView), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path((cluster, group)): Path<(String, String)>,
) -> Result<impl IntoResponse, Problem> {
    let group = actions::get(&state, &caller, &cluster, &group).await?;
    Ok((etag(group.generation), Json(group)))
}

/// Change how many workers a node group has.
#[utoipa::path(patch, path = "/api/v1/clusters/{cluster}/node-groups/{group}", tag = "node groups",
    request_body = ScaleNodeGroup,
    params(("cluster" = String, Path, description = "Id or name"),
        ("group" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the node group")),
    responses((status = 200, body = NodeGroupView), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem),
        (status = 422, body = Problem)))]
pub async fn scale(
    State(state): State<AppState>,
    caller: Caller,
    Path((cluster, group)): Path<(String, String)>,
    IfMatch(generation): IfMatch,
    Body(change): Body<ScaleNodeGroup>,
) -> Result<impl IntoResponse, Problem> {
    let group = actions::scale(&state, &caller, &cluster, &group, &change, generation).await?;
    Ok((etag(group.generation), Json(group)))
}

/// Delete a node group with its workers.
#[utoipa::path(delete, path = "/api/v1/clusters/{cluster}/node-groups/{group}", tag = "node groups",
    params(("cluster" = String, Path, description = "Id or name"),
        ("group" = String, Path, description = "Id or name"),
        ("If-Match" = Option<String>, Header, description = "ETag of the node group")),
    responses((status = 202, body = NodeGroupView), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem)))]
pub async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    Path((cluster, group)): Path<(String, String)>,
    IfMatch(generation): IfMatch,
) -> Result<(StatusCode, Json<NodeGroupView>), Problem> {
    let group = actions::delete(&state, &caller, &cluster, &group, generation).await?;
    Ok((StatusCode::ACCEPTED, Json(group)))
}

/// The workers of a cluster, oldest first.
#[utoipa::path(get, path = "/api/v1/clusters/{cluster}/nodes", tag = "node groups",
    params(("cluster" = String, Path, description = "Id or name")),
    responses((status = 200, body = Page<NodeView>), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub async fn nodes(
    State(state): State<AppState>,
    caller: Caller,
    Path(cluster): Path<String>,
) -> Result<Json<Page<NodeView>>, Problem> {
    let items = actions::nodes(&state, &caller, &cluster).await?;
    Ok(Json(Page { items, next_cursor: None }))
}
