//! Idempotency keys: a creation that is sent twice makes one object.

use crate::{
    db::{Reader, Writer},
    error::{DbError, Result},
    ids::OrgId,
};

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Never seen: do it, then [`Writer::remember_key`] in the same transaction.
    New,
    /// The same request made this resource before: answer with it.
    Done(String),
}

impl Reader {
    /// Looks a key up. Conflict when it was used for a different request.
    pub async fn idempotency_key(
        &mut self,
        org: &OrgId,
        key: &str,
        request_hash: &str,
    ) -> Result<Replay> {
        let row: Option<(String, String)> = sqlx::query_as(
            "SELECT request_hash, resource FROM idempotency WHERE org_id = $1 AND key = $2",
        )
        .bind(org)
        .bind(key)
        .fetch_optional(self.conn())
        .await?;
        match row {
            None => Ok(Replay::New),
            Some((hash, resource)) if hash == request_hash => Ok(Replay::Done(resource)),
            Some(_) => Err(DbError::Conflict {
                noun: "idempotency key",
                name: key.to_owned(),
                reason: "it was used for a different request".to_owned(),
            }),
        }
    }
}

impl Writer {
    /// Remembers which resource a key made.
    pub async fn remember_key(
        &mut self,
        org: &OrgId,
        key: &str,
        request_hash: &str,
        resource: &str,
    ) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO idempotency (org_id, key, request_hash, resource, created_ms) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(org)
        .bind(key)
        .bind(request_hash)
        .bind(resource)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Forgets keys older than a time (Unix ms).
    pub async fn prune_keys(&mut self, before_ms: i64) -> Result<u64> {
        let done = sqlx::query("DELETE FROM idempotency WHERE created_ms < $1")
            .bind(before_ms)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}
