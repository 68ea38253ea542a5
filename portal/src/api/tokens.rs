//! API tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{Body, Path};
use crate::actions::tokens as actions;
use crate::actions::tokens::{MintedToken, NewToken};
use crate::identity::Caller;
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::{Page, TokenView};

/// The organization's API tokens, newest first.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens",
    responses((status = 200, body = Page<TokenView>), (status = 401, body = Problem)))]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<Page<TokenView>>, Problem> {
    Ok(Json(Page { items: actions::list(&state, &caller).await?, next_cursor: None }))
}

/// Make a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = NewToken,
    responses((status = 201, body = MintedToken), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<MintedToken>), Problem> {
    Ok((StatusCode::CREATED, Json(actions::create(&state, &caller, &new).await?)))
}

/// Revoke a token at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens",
    params(("token" = String, Path, description = "Id of the token")),
    responses((status = 204), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub async fn revoke(
    State(state): State<AppState>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    actions::revoke(&state, &caller, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}
