//! Sealed secrets: keys and certificates of clusters, members and nodes.
//!
//! The owner is the id of what the secret belongs to (a cluster's, member's or node's id), the
//! name says what it is (`pki`, `files`). Removing a cluster removes what it owns.

use crate::{
    db::{Reader, Writer},
    error::Result,
    seal::Sealer,
};

impl Reader {
    /// Opens a secret; `None` when there is none.
    pub async fn secret(
        &mut self,
        sealer: &Sealer,
        owner: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>> {
        let sealed: Option<String> =
            sqlx::query_scalar("SELECT sealed FROM secrets WHERE owner = $1 AND name = $2")
                .bind(owner)
                .bind(name)
                .fetch_optional(self.conn())
                .await?;
        sealed.map(|sealed| sealer.open(owner, name, &sealed)).transpose()
    }

    /// Opens all secrets of one name, as (owner, content). For the controller's pass over
    /// everything.
    pub async fn secrets_named(
        &mut self,
        sealer: &Sealer,
        name: &str,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT owner, sealed FROM secrets WHERE name = $1 ORDER BY owner")
                .bind(name)
                .fetch_all(self.conn())
                .await?;
        rows.into_iter()
            .map(|(owner, sealed)| {
                let plain = sealer.open(&owner, name, &sealed)?;
                Ok((owner, plain))
            })
            .collect()
    }
}

impl Writer {
    /// Seals and stores a secret, replacing one of that name.
    pub async fn set_secret(
        &mut self,
        sealer: &Sealer,
        owner: &str,
        name: &str,
        plain: &[u8],
    ) -> Result<()> {
        let sealed = sealer.seal(owner, name, plain);
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO secrets (owner, name, sealed, updated_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (owner, name) DO UPDATE SET sealed = excluded.sealed, \
             updated_ms = excluded.updated_ms",
        )
        .bind(owner)
        .bind(name)
        .bind(sealed)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Removes all secrets of an owner.
    pub async fn delete_secrets_of(&mut self, owner: &str) -> Result<()> {
        sqlx::query("DELETE FROM secrets WHERE owner = $1")
            .bind(owner)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
