//! The signed-in browser.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use marina_db::seal::hash_token;
use marina_db::sessions::NewSession;
use marina_db::tokens::TokenScope;
use marina_db::users::User;
use marina_db::{DbError, SessionId, ids, now_ms};

use super::page;
use crate::api::extract::remote;
use crate::identity::Caller;
use crate::password;
use crate::problem::Problem;
use crate::state::AppState;

/// Name of the cookie.
const COOKIE: &str = "marina_session";
/// How long a session lives without use, in milliseconds.
const IDLE_MS: i64 = 12 * 3600 * 1000;
/// How old the recorded last use may become, in milliseconds.
const TOUCH_MS: i64 = 5 * 60 * 1000;

/// A signed-in browser.
pub(super) struct Session {
    pub id: SessionId,
    pub csrf: String,
    pub caller: Caller,
}

impl Session {
    /// Checks the token that every form carries.
    pub fn check(&self, csrf: &str) -> Result<(), Problem> {
        // Both sides are hashed: comparing hashes tells nothing about where the inputs differ.
        if hash_token(csrf) == hash_token(&self.csrf) {
            return Ok(());
        }
        Err(Problem::forbidden("This page is too old to be sent. Open it again and repeat."))
    }
}

/// Why a request has no session.
pub(super) enum NoSession {
    /// Nobody is signed in.
    SignIn,
    /// The password has to be changed first.
    ChangePassword,
    /// Something is wrong.
    Problem(Problem),
}

impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn => Redirect::to("/sign-in").into_response(),
            Self::ChangePassword => Redirect::to("/password").into_response(),
            Self::Problem(problem) => page::error(problem).into_response(),
        }
    }
}

impl<E: Into<Problem>> From<E> for NoSession {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl FromRequestParts<AppState> for Session {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, NoSession> {
        let session = load(parts, state).await?;
        if session.caller.user.must_change {
            return Err(NoSession::ChangePassword);
        }
        Ok(session)
    }
}

/// A session whose password may still have to be changed.
pub(super) struct AnySession(pub Session);

impl FromRequestParts<AppState> for AnySession {
    type Rejection = NoSession;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, NoSession> {
        load(parts, state).await.map(Self)
    }
}

async fn load(parts: &Parts, state: &AppState) -> Result<Session, NoSession> {
    let token = cookie(&parts.headers).ok_or(NoSession::SignIn)?;
    let mut tx = state.db.read().await?;
    let stored = match tx.session_by_token_hash(&hash_token(token)).await {
        Ok(stored) => stored,
        Err(DbError::NotFound { .. }) => return Err(NoSession::SignIn),
        Err(error) => return Err(error.into()),
    };
    let user = tx.user(&stored.user_id).await?;
    let membership = tx.memberships_of(&user.id).await?.into_iter().next();
    let membership = membership.ok_or_else(|| {
        Problem::forbidden("You are not a member of any organization. Ask an owner to add you.")
    })?;
    let org = tx.organization(&membership.org_id).await?;
    drop(tx);
    if now_ms() - stored.last_used_ms > TOUCH_MS {
        let mut tx = state.db.write().await?;
        tx.touch_session(&stored.id, now_ms() + IDLE_MS).await?;
        tx.commit().await?;
    }
    let caller = Caller {
        actor: user.login.clone(),
        user,
        org,
        role: membership.role,
        scope: TokenScope::Write,
        expires_ms: None,
        remote: remote(parts),
    };
    Ok(Session { id: stored.id, csrf: stored.csrf_secret, caller })
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Starts a session and returns its `Set-Cookie` value.
pub(super) async fn start(
    state: &AppState,
    user: &User,
    remote: &str,
    user_agent: &str,
) -> Result<HeaderValue, Problem> {
    let token = password::token("session");
    let mut tx = state.db.write().await?;
    tx.prune_sessions().await?;
    let new = NewSession {
        user_id: user.id.clone(),
        token_hash: hash_token(&token),
        csrf_secret: ids::random_hex(32),
        remote: remote.to_owned(),
        user_agent: user_agent.chars().take(200).collect(),
        expires_ms: tx.now_ms() + IDLE_MS,
    };
    tx.create_session(&new).await?;
    tx.commit().await?;
    Ok(set_cookie(state, &token, IDLE_MS / 1000))
}

/// Ends a session and returns the `Set-Cookie` value that removes the cookie.
pub(super) async fn end(state: &AppState, id: &SessionId) -> Result<HeaderValue, Problem> {
    let mut tx = state.db.write().await?;
    tx.delete_session(id).await?;
    tx.commit().await?;
    Ok(set_cookie(state, "", 0))
}

fn set_cookie(state: &AppState, token: &str, max_age: i64) -> HeaderValue {
    let secure = if state.secure_cookies { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={token}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).expect("a token is made of letters, digits and underscores")
}
