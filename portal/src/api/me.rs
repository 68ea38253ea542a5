//! Signing in from a command line, and who one is.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, Remote};
use crate::actions::tokens::MintedToken;
use crate::actions::{sign_in as passwords, tokens};
use crate::identity::Caller;
use crate::problem::Problem;
use crate::state::AppState;

/// A login and a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Login.
    pub login: String,
    /// Password.
    #[schema(format = Password)]
    pub password: String,
    /// A new password; needed when the present one is a one-time password.
    #[schema(format = Password)]
    pub new_password: Option<String>,
    /// Name of the token that is made, 1 to 60 characters. A token of the same name is replaced.
    /// Default: `cli`.
    pub token_name: Option<String>,
}

/// Sign in with a password and get an API token that is valid for 30 days.
#[utoipa::path(post, path = "/api/v1/sign-in", tag = "me", request_body = SignIn, security(()),
    responses((status = 201, body = MintedToken), (status = 401, body = Problem),
        (status = 403, body = Problem, description = "A one-time password must be replaced"),
        (status = 422, body = Problem), (status = 429, body = Problem)))]
pub async fn sign_in(
    State(state): State<AppState>,
    Remote(remote): Remote,
    Body(body): Body<SignIn>,
) -> Result<(axum::http::StatusCode, Json<MintedToken>), Problem> {
    let name = body.token_name.as_deref().unwrap_or("cli");
    let name = tokens::name("token_name", name).map_err(|error| Problem::invalid(vec![error]))?;
    let user = passwords::check(&state, &body.login, body.password.clone(), &remote).await?;
    match body.new_password {
        Some(new) => passwords::change_password(&state, &user, &body.password, new).await?,
        None if user.must_change => {
            return Err(Problem::forbidden(
                "This is a one-time password. Choose another one: send it as `new_password`.",
            ));
        }
        None => {}
    }
    let mut tx = state.db.read().await?;
    let memberships = tx.memberships_of(&user.id).await?;
    drop(tx);
    let Some(membership) = memberships.first() else {
        return Err(Problem::forbidden("You are not a member of any organization."));
    };
    let minted = tokens::sign_in(&state, &user, &membership.org_id, name).await?;
    Ok((axum::http::StatusCode::CREATED, Json(minted)))
}

/// Who the caller is.
#[derive(Serialize, ToSchema)]
pub struct Me {
    /// Login.
    pub login: String,
    /// Name to show.
    pub display_name: String,
    /// Organization of the token.
    pub organization: String,
    /// Role in it.
    pub role: String,
    /// What the token allows: `read` or `write`.
    pub scope: String,
    /// May see the region's hosts.
    pub operator: bool,
}

/// The caller.
#[utoipa::path(get, path = "/api/v1/me", tag = "me",
    responses((status = 200, body = Me), (status = 401, body = Problem)))]
pub async fn me(caller: Caller) -> Json<Me> {
    Json(Me {
        login: caller.user.login,
        display_name: caller.user.display_name,
        organization: caller.org.name,
        role: caller.role.to_string(),
        scope: caller.scope.to_string(),
        operator: caller.user.operator,
    })
}
