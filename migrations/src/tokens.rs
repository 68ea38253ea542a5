//! API tokens: how machines sign in.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::{Result, conflict, found},
    ids::{OrgId, TokenId, UserId},
    sql_types::text_enum,
};

text_enum! {
    /// What an API token allows, within the role of the user who made it.
    TokenScope("token scope") {
        /// Everything that the user's role allows.
        Write = "write",
        /// Reads only.
        Read = "read",
    }
}

/// An API token. The token itself is not stored, only its hash
/// ([`crate::seal::hash_token`]).
#[derive(Clone, Debug, FromRow)]
pub struct ApiToken {
    /// Id.
    pub id: TokenId,
    /// Organization that it is for.
    pub org_id: OrgId,
    /// Who made it and whose role it has.
    pub user_id: UserId,
    /// Name that the user gave it.
    pub name: String,
    /// What it allows.
    pub scope: TokenScope,
    /// Unix ms.
    pub created_ms: i64,
    /// Not valid from then on (Unix ms); `None`: until it is deleted.
    pub expires_ms: Option<i64>,
    /// Last use (Unix ms).
    pub last_used_ms: Option<i64>,
}

/// What is needed to make a token.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Organization that it is for.
    pub org_id: OrgId,
    /// Who makes it.
    pub user_id: UserId,
    /// Name, unique per user and organization.
    pub name: String,
    /// Hash of the token.
    pub token_hash: String,
    /// What it allows.
    pub scope: TokenScope,
    /// Not valid from then on (Unix ms).
    pub expires_ms: Option<i64>,
}

impl Reader {
    /// The unexpired token with this hash.
    pub async fn api_token_by_hash(&mut self, token_hash: &str) -> Result<ApiToken> {
        let now = self.now_ms();
        let row = sqlx::query_as(
            "SELECT * FROM api_tokens WHERE token_hash = $1 \
             AND (expires_ms IS NULL OR expires_ms > $2)",
        )
        .bind(token_hash)
        .bind(now)
        .fetch_optional(self.conn())
        .await?;
        found(row, "API token", "(token)")
    }

    /// All tokens of an organization, newest first, expired ones included.
    pub async fn api_tokens(&mut self, org: &OrgId) -> Result<Vec<ApiToken>> {
        Ok(sqlx::query_as(
            "SELECT * FROM api_tokens WHERE org_id = $1 ORDER BY created_ms DESC, id",
        )
        .bind(org)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Makes a token. Conflict when the user has one of that name.
    pub async fn create_api_token(&mut self, new: &NewApiToken) -> Result<ApiToken> {
        let id = TokenId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO api_tokens (id, org_id, user_id, name, token_hash, scope, created_ms, \
             expires_ms, last_used_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, NULL)",
        )
        .bind(&id)
        .bind(&new.org_id)
        .bind(&new.user_id)
        .bind(&new.name)
        .bind(&new.token_hash)
        .bind(new.scope.as_str())
        .bind(now)
        .bind(new.expires_ms)
        .execute(self.conn())
        .await
        .map_err(|e| {
            conflict(e, "API token", &new.name, "you have a token of this name", "no such owner")
        })?;
        let row = sqlx::query_as("SELECT * FROM api_tokens WHERE id = $1")
            .bind(&id)
            .fetch_optional(self.conn())
            .await?;
        found(row, "API token", id.as_str())
    }

    /// Records use.
    pub async fn touch_api_token(&mut self, id: &TokenId) -> Result<()> {
        let now = self.now_ms();
        sqlx::query("UPDATE api_tokens SET last_used_ms = $2 WHERE id = $1")
            .bind(id)
            .bind(now)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Revokes a token of an organization; true if there was one.
    pub async fn delete_api_token(&mut self, org: &OrgId, id: &TokenId) -> Result<bool> {
        let done = sqlx::query("DELETE FROM api_tokens WHERE id = $1 AND org_id = $2")
            .bind(id)
            .bind(org)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
