//! The audit log: append-only.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::Result,
    ids::OrgId,
};

/// One action.
#[derive(Clone, Debug, FromRow)]
pub struct AuditEntry {
    /// Position in the order of all entries; a cursor.
    pub seq: i64,
    /// When (Unix ms).
    pub time_ms: i64,
    /// Organization; empty for actions of the region.
    pub org_id: String,
    /// Who: a login, or `token:<name>`.
    pub actor: String,
    /// From where.
    pub remote: String,
    /// What, such as `cluster.create`.
    pub action: String,
    /// On what, such as `cluster/3fa9c01d`.
    pub target: String,
    /// `ok`, or why it was refused.
    pub outcome: String,
    /// Further facts as JSON; never secrets.
    pub detail: String,
}

/// An action that is to be recorded.
#[derive(Clone, Debug, Default)]
pub struct NewAuditEntry {
    /// Organization; empty for actions of the region.
    pub org_id: String,
    /// Who.
    pub actor: String,
    /// From where.
    pub remote: String,
    /// What.
    pub action: String,
    /// On what.
    pub target: String,
    /// `ok`, or why it was refused.
    pub outcome: String,
    /// Further facts as JSON; never secrets.
    pub detail: String,
}

impl Reader {
    /// The newest entries of an organization before a cursor, newest first.
    pub async fn audit_before(
        &mut self,
        org: &OrgId,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditEntry>> {
        Ok(sqlx::query_as(
            "SELECT * FROM audit WHERE org_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(org)
        .bind(before)
        .bind(limit)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Records an action.
    pub async fn record_audit(&mut self, entry: &NewAuditEntry) -> Result<()> {
        let (seq, now) = (self.next_seq(), self.now_ms());
        sqlx::query(
            "INSERT INTO audit (seq, time_ms, org_id, actor, remote, action, target, outcome, \
             detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(seq)
        .bind(now)
        .bind(&entry.org_id)
        .bind(&entry.actor)
        .bind(&entry.remote)
        .bind(&entry.action)
        .bind(&entry.target)
        .bind(&entry.outcome)
        .bind(&entry.detail)
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
