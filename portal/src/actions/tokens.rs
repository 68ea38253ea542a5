//! API tokens.

use marina_db::seal::hash_token;
use marina_db::tokens::{NewApiToken, TokenScope};
use marina_db::users::User;
use marina_db::{OrgId, TokenId, Writer, now_ms};
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
    /// Days until it expires, 1 to 365. Default: 90. It never outlives the token that makes it.
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
        errors.extend(name("name", &self.name).err());
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

/// The name of a token, without blanks around it.
///
/// # Errors
/// The field, when it is not a name.
pub fn name<'a>(field: &str, text: &'a str) -> Result<&'a str, FieldError> {
    let name = text.trim();
    if !(1..=60).contains(&name.chars().count()) || text.chars().any(char::is_control) {
        let rule = "must have 1 to 60 characters, none of them a control character.";
        return Err(FieldError::new(field, rule));
    }
    Ok(name)
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

/// Makes a token with the caller's rights. One that is made with another token expires with it at
/// the latest.
///
/// # Errors
/// 422, 409, 403.
pub async fn create(
    state: &AppState,
    caller: &Caller,
    new: &NewToken,
) -> Result<MintedToken, Problem> {
    if caller.scope == TokenScope::Read {
        let detail = "This API token only reads. Make tokens with one that writes.";
        return Err(Problem::forbidden(detail));
    }
    let (scope, days) = new.check().map_err(Problem::invalid)?;
    let asked = now_ms() + days * DAY_MS;
    let expires_ms = caller.expires_ms.map_or(asked, |own| own.min(asked));
    let mut tx = state.db.write().await?;
    let (org, name) = (&caller.org.id, new.name.trim());
    let minted = mint(&mut tx, &caller.user, org, name, scope, expires_ms).await?;
    let detail = json!({ "name": name, "scope": scope, "expires_ms": expires_ms });
    audit(&mut tx, caller, "token.create", format!("token/{}", minted.view.id), detail).await?;
    tx.commit().await?;
    Ok(minted)
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
    let expires_ms = tx.now_ms() + 30 * DAY_MS;
    let minted = mint(&mut tx, user, org, name, TokenScope::Write, expires_ms).await?;
    tx.commit().await?;
    Ok(minted)
}

async fn mint(
    tx: &mut Writer,
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
    let stored = tx.create_api_token(&new).await?;
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
