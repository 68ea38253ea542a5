//! API tokens.

use marina_db::seal::hash_token;
use marina_db::tokens::{NewApiToken, TokenScope};
use marina_db::users::User;
use marina_db::{OrgId, TokenId, now_ms};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::audit;
use crate::identity::{Caller, Permission};
use crate::input::check_range;
use crate::password;
use crate::problem::{FieldError, Problem};
use crate::state::AppState;
use crate::view::TokenView;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Body of `POST /tokens`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Name, 1 to 60 characters.
    pub name: String,
    /// `read` or `write`. Default: `write`.
    pub scope: Option<String>,
    /// Days until it expires, 1 to 365. Default: 90.
    pub ttl_days: Option<i64>,
}

/// A token that was just made: the only time that its secret is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MintedToken {
    /// Send it as `Authorization: Bearer <token>`.
    pub token: String,
    /// What is stored of it.
    #[serde(flatten)]
    pub view: TokenView,
}

impl NewToken {
    fn check(&self) -> Result<(TokenScope, i64), Vec<FieldError>> {
        let mut errors = Vec::new();
        let length = self.name.trim().chars().count();
        if !(1..=60).contains(&length) || self.name.chars().any(char::is_control) {
            errors.push(FieldError::new("name", "must have 1 to 60 characters."));
        }
        let scope = self.scope.as_deref().unwrap_or("write").parse();
        if scope.is_err() {
            errors.push(FieldError::new("scope", "must be `read` or `write`."));
        }
        let days = self.ttl_days.unwrap_or(90);
        check_range("ttl_days", days, 1..=365, " days", &mut errors);
        match scope {
            Ok(scope) if errors.is_empty() => Ok((scope, days)),
            _ => Err(errors),
        }
    }
}

/// The organization's tokens, newest first.
///
/// # Errors
/// 403.
pub async fn list(state: &AppState, caller: &Caller) -> Result<Vec<TokenView>, Problem> {
    caller.may(Permission::Read)?;
    let tokens = state.db.read().await?.api_tokens(&caller.org.id).await?;
    Ok(tokens.iter().map(TokenView::from).collect())
}

/// Makes a token with the caller's rights.
///
/// # Errors
/// 422, 409, 403.
pub async fn create(
    state: &AppState,
    caller: &Caller,
    new: &NewToken,
) -> Result<MintedToken, Problem> {
    let (scope, days) = new.check().map_err(Problem::invalid)?;
    if caller.scope == TokenScope::Read && scope == TokenScope::Write {
        return Err(Problem::forbidden("A token that only reads cannot make one that writes."));
    }
    let expires = now_ms() + days * DAY_MS;
    let name = new.name.trim();
    mint(state, Some(caller), &caller.user, &caller.org.id, name, scope, expires).await
}

/// Makes a token for a user who has just proved a password; the command line signs in with it. A
/// token of the same name is replaced, so that signing in again leaves one token.
///
/// # Errors
/// 500.
pub async fn sign_in(
    state: &AppState,
    user: &User,
    org: &OrgId,
    name: &str,
) -> Result<MintedToken, Problem> {
    let mut tx = state.db.write().await?;
    for token in tx.api_tokens(org).await? {
        if token.user_id == user.id && token.name == name {
            tx.delete_api_token(org, &token.id).await?;
        }
    }
    tx.commit().await?;
    let expires = now_ms() + 30 * DAY_MS;
    mint(state, None, user, org, name, TokenScope::Write, expires).await
}

async fn mint(
    state: &AppState,
    caller: Option<&Caller>,
    user: &User,
    org: &OrgId,
    name: &str,
    scope: TokenScope,
    expires_ms: i64,
) -> Result<MintedToken, Problem> {
    let token = password::token("marina");
    let new = NewApiToken {
        org_id: org.clone(),
        user_id: user.id.clone(),
        name: name.to_owned(),
        token_hash: hash_token(&token),
        scope,
        expires_ms: Some(expires_ms),
    };
    let mut tx = state.db.write().await?;
    let stored = tx.create_api_token(&new).await?;
    if let Some(caller) = caller {
        let detail = json!({ "name": name, "scope": scope, "expires_ms": expires_ms });
        audit(&mut tx, caller, "token.create", format!("token/{}", stored.id), detail).await?;
    }
    tx.commit().await?;
    Ok(MintedToken { token, view: TokenView::from(&stored) })
}

/// Revokes a token at once.
///
/// # Errors
/// 404, 403.
pub async fn revoke(state: &AppState, caller: &Caller, id: &str) -> Result<(), Problem> {
    caller.may(Permission::Develop)?;
    let mut tx = state.db.write().await?;
    let id = TokenId::from(id);
    if !tx.delete_api_token(&caller.org.id, &id).await? {
        return Err(Problem::not_found(format!("There is no API token {id}.")));
    }
    audit(&mut tx, caller, "token.revoke", format!("token/{id}"), json!({})).await?;
    tx.commit().await?;
    Ok(())
}
