//! Leases: which controller replica works on what.

use crate::{
    db::{Reader, Writer},
    error::Result,
};

impl Reader {
    /// Who holds a lease now.
    pub async fn lease_holder(&mut self, name: &str) -> Result<Option<String>> {
        let now = self.now_ms();
        Ok(sqlx::query_scalar("SELECT holder FROM leases WHERE name = $1 AND expires_ms > $2")
            .bind(name)
            .bind(now)
            .fetch_optional(self.conn())
            .await?)
    }
}

impl Writer {
    /// Takes or renews a lease until `ttl_ms` from now; false when another holder has it. Clocks
    /// of the replicas must agree to much less than `ttl_ms`.
    pub async fn acquire_lease(&mut self, name: &str, holder: &str, ttl_ms: i64) -> Result<bool> {
        let now = self.now_ms();
        let done = sqlx::query(
            "INSERT INTO leases (name, holder, expires_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, \
             expires_ms = excluded.expires_ms \
             WHERE leases.holder = excluded.holder OR leases.expires_ms <= $4",
        )
        .bind(name)
        .bind(holder)
        .bind(now.saturating_add(ttl_ms))
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Gives a lease back, if it is held.
    pub async fn release_lease(&mut self, name: &str, holder: &str) -> Result<()> {
        sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(holder)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
