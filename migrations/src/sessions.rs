//! Signed-in browsers.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::{Result, found},
    ids::{SessionId, UserId},
};

/// A signed-in browser. The cookie's token is not stored, only its hash
/// ([`crate::seal::hash_token`]).
#[derive(Clone, Debug, FromRow)]
pub struct Session {
    /// Id; may be shown to the user in a list of sessions.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Secret from which CSRF tokens of this session are made.
    pub csrf_secret: String,
    /// Address that signed in.
    pub remote: String,
    /// Browser that signed in.
    pub user_agent: String,
    /// Unix ms.
    pub created_ms: i64,
    /// Unix ms; updated at most as often as the portal calls [`Writer::touch_session`].
    pub last_used_ms: i64,
    /// Not valid from then on (Unix ms).
    pub expires_ms: i64,
}

/// What is needed to make a session.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Whose it is.
    pub user_id: UserId,
    /// Hash of the cookie's token.
    pub token_hash: String,
    /// Secret from which CSRF tokens of this session are made.
    pub csrf_secret: String,
    /// Address that signs in.
    pub remote: String,
    /// Browser that signs in.
    pub user_agent: String,
    /// Not valid from then on (Unix ms).
    pub expires_ms: i64,
}

impl Reader {
    /// The unexpired session of a token.
    pub async fn session_by_token_hash(&mut self, token_hash: &str) -> Result<Session> {
        let now = self.now_ms();
        let row =
            sqlx::query_as("SELECT * FROM sessions WHERE token_hash = $1 AND expires_ms > $2")
                .bind(token_hash)
                .bind(now)
                .fetch_optional(self.conn())
                .await?;
        found(row, "session", "(token)")
    }

    /// All unexpired sessions of a user, newest first.
    pub async fn sessions_of(&mut self, user: &UserId) -> Result<Vec<Session>> {
        let now = self.now_ms();
        Ok(sqlx::query_as(
            "SELECT * FROM sessions WHERE user_id = $1 AND expires_ms > $2 ORDER BY created_ms DESC",
        )
        .bind(user)
        .bind(now)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Makes a session.
    pub async fn create_session(&mut self, new: &NewSession) -> Result<SessionId> {
        let id = SessionId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO sessions (id, user_id, token_hash, csrf_secret, remote, user_agent, \
             created_ms, last_used_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
        )
        .bind(&id)
        .bind(&new.user_id)
        .bind(&new.token_hash)
        .bind(&new.csrf_secret)
        .bind(&new.remote)
        .bind(&new.user_agent)
        .bind(now)
        .bind(new.expires_ms)
        .execute(self.conn())
        .await?;
        Ok(id)
    }

    /// Records use, and moves the expiry.
    pub async fn touch_session(&mut self, id: &SessionId, expires_ms: i64) -> Result<()> {
        let now = self.now_ms();
        sqlx::query("UPDATE sessions SET last_used_ms = $2, expires_ms = $3 WHERE id = $1")
            .bind(id)
            .bind(now)
            .bind(expires_ms)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Ends one session (sign-out, revocation). Ending an ended one is no error.
    pub async fn delete_session(&mut self, id: &SessionId) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(self.conn()).await?;
        Ok(())
    }

    /// Ends all sessions of a user.
    pub async fn delete_sessions_of(&mut self, user: &UserId) -> Result<()> {
        sqlx::query("DELETE FROM sessions WHERE user_id = $1")
            .bind(user)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Removes what has expired.
    pub async fn prune_sessions(&mut self) -> Result<u64> {
        let now = self.now_ms();
        let done = sqlx::query("DELETE FROM sessions WHERE expires_ms <= $1")
            .bind(now)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}
