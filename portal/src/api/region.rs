//! What the region offers: versions and hosts.

use axum::Json;
use axum::extract::State;

use crate::identity::{Caller, Permission};
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::{HostView, Page, VersionView};

/// Kubernetes minors.
#[utoipa::path(get, path = "/api/v1/versions", tag = "region",
    responses((status = 200, body = Page<VersionView>), (status = 401, body = Problem)))]
pub async fn versions(
    State(state): State<AppState>,
    _caller: Caller,
) -> Result<Json<Page<VersionView>>, Problem> {
    let versions = state.db.read().await?.versions().await?;
    let items = versions.iter().map(VersionView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Management hosts, for operators of the region.
#[utoipa::path(get, path = "/api/v1/hosts", tag = "region",
    responses((status = 200, body = Page<HostView>), (status = 401, body = Problem),
        (status = 403, body = Problem)))]
pub async fn hosts(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Page<HostView>>, Problem> {
    caller.may(Permission::Operate)?;
    let hosts = state.db.read().await?.hosts().await?;
    let items = hosts.iter().map(HostView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}
