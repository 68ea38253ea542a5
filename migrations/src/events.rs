//! Events: what happened to a cluster, in the customer's words. They outlive the cluster.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::Result,
    ids::{ClusterId, OrgId},
    sql_types::text_enum,
};

text_enum! {
    /// How bad it is.
    Severity("severity") {
        /// As it should be.
        Info = "info",
        /// Marina deals with it; the customer may want to know.
        Warning = "warning",
        /// Somebody has to do something.
        Error = "error",
    }
}

/// Something that happened.
#[derive(Clone, Debug, FromRow)]
pub struct Event {
    /// Position in the order of all events; a cursor for "what is new".
    pub seq: i64,
    /// Organization.
    pub org_id: OrgId,
    /// Cluster.
    pub cluster_id: ClusterId,
    /// When (Unix ms).
    pub time_ms: i64,
    /// Stable machine-readable kind, such as `NodeReplaced`.
    pub kind: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `node/pool-x7k2p`.
    pub subject: String,
    /// A sentence.
    pub message: String,
}

/// An event that is to be recorded.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Organization.
    pub org_id: OrgId,
    /// Cluster.
    pub cluster_id: ClusterId,
    /// Stable machine-readable kind.
    pub kind: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub subject: String,
    /// A sentence.
    pub message: String,
}

impl Reader {
    /// The newest events of a cluster before a cursor (`i64::MAX` for the newest), newest first.
    pub async fn events_before(
        &mut self,
        cluster: &ClusterId,
        before: i64,
        limit: i64,
    ) -> Result<Vec<Event>> {
        Ok(sqlx::query_as(
            "SELECT * FROM events WHERE cluster_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(cluster)
        .bind(before)
        .bind(limit)
        .fetch_all(self.conn())
        .await?)
    }

    /// The events of a cluster after a cursor (0 for the first), oldest first.
    pub async fn events_after(
        &mut self,
        cluster: &ClusterId,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Event>> {
        Ok(sqlx::query_as(
            "SELECT * FROM events WHERE cluster_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(cluster)
        .bind(after)
        .bind(limit)
        .fetch_all(self.conn())
        .await?)
    }

    /// The newest events of an organization, those of deleted clusters included, newest first.
    pub async fn events_of_org(
        &mut self,
        org: &OrgId,
        before: i64,
        limit: i64,
    ) -> Result<Vec<Event>> {
        Ok(sqlx::query_as(
            "SELECT * FROM events WHERE org_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(org)
        .bind(before)
        .bind(limit)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Records an event.
    pub async fn record_event(&mut self, event: &NewEvent) -> Result<()> {
        let (seq, now) = (self.next_seq(), self.now_ms());
        sqlx::query(
            "INSERT INTO events (seq, org_id, cluster_id, time_ms, kind, severity, subject, \
             message) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(seq)
        .bind(&event.org_id)
        .bind(&event.cluster_id)
        .bind(now)
        .bind(&event.kind)
        .bind(event.severity.as_str())
        .bind(&event.subject)
        .bind(&event.message)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Removes events older than a time (Unix ms).
    pub async fn prune_events(&mut self, before_ms: i64) -> Result<u64> {
        let done = sqlx::query("DELETE FROM events WHERE time_ms < $1")
            .bind(before_ms)
            .execute(self.conn())
            .await?;
        Ok(done.rows_affected())
    }
}
