//! What became of a cluster: written by the controller, read by everyone.

use std::time::Duration;

use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    db::{Db, Reader, Writer},
    error::{DbError, Result},
    ids::{ClusterId, OrgId},
    sql_types::{JsonText, json, text_enum},
};

text_enum! {
    /// Where a cluster is in its life.
    ClusterPhase("cluster phase") {
        /// Nothing is made yet; `message` says what it waits for (for instance room on a host).
        /// Next: Provisioning.
        Pending = "pending",
        /// Its control plane is being made; the steps say how far. Next: Ready.
        Provisioning = "provisioning",
        /// The control plane serves. Next: Degraded, Deleting.
        Ready = "ready",
        /// It was ready, and some part is down; `message` says which. Next: Ready, Deleting.
        Degraded = "degraded",
        /// Deletion was asked for and goes on; then the row is gone.
        Deleting = "deleting",
    }
}

text_enum! {
    /// State of one step.
    StepState("step state") {
        /// Not begun.
        Waiting = "waiting",
        /// Going on.
        Running = "running",
        /// Finished.
        Done = "done",
        /// Cannot go on now; `message` says why. It is tried again.
        Failed = "failed",
    }
}

/// One step of provisioning, in the order in which they happen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Step {
    /// Stable name, such as `etcd`.
    pub name: String,
    /// Title for people.
    pub title: String,
    /// State.
    pub state: StepState,
    /// Why it waits or failed; empty when there is nothing to say.
    pub message: String,
    /// When it began (Unix ms).
    pub started_ms: Option<i64>,
    /// When it was done (Unix ms).
    pub finished_ms: Option<i64>,
}

/// A cluster as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterObserved {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Phase.
    pub phase: ClusterPhase,
    /// One sentence for people.
    pub message: String,
    /// The generation of the intent that has been acted on completely.
    pub observed_generation: i64,
    /// `https://host:port` of the gateway, empty until placed.
    pub endpoint: String,
    /// Name to send as SNI and to verify: `<cluster-id>.<domain>`; empty until placed.
    pub server_name: String,
    /// Provisioning steps in order.
    pub steps: Vec<Step>,
    /// When the control plane first served (Unix ms).
    pub ready_ms: Option<i64>,
    /// When this row last changed (Unix ms).
    pub updated_ms: i64,
}

impl ClusterObserved {
    /// What is known of a cluster that the controller has not looked at.
    pub fn unseen(cluster_id: &ClusterId) -> Self {
        Self {
            cluster_id: cluster_id.clone(),
            phase: ClusterPhase::Pending,
            message: "Waiting for the provisioner to pick this cluster up.".to_owned(),
            observed_generation: 0,
            endpoint: String::new(),
            server_name: String::new(),
            steps: Vec::new(),
            ready_ms: None,
            updated_ms: 0,
        }
    }
}

impl FromRow<'_, SqliteRow> for ClusterObserved {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            cluster_id: row.try_get("cluster_id")?,
            phase: row.try_get("phase")?,
            message: row.try_get("message")?,
            observed_generation: row.try_get("observed_generation")?,
            endpoint: row.try_get("endpoint")?,
            server_name: row.try_get("server_name")?,
            steps: row.try_get::<JsonText<Vec<Step>>, _>("steps")?.0,
            ready_ms: row.try_get("ready_ms")?,
            updated_ms: row.try_get("updated_ms")?,
        })
    }
}

impl Reader {
    /// What is known of a cluster (never "not found": an unseen cluster is pending).
    pub async fn cluster_observed(&mut self, id: &ClusterId) -> Result<ClusterObserved> {
        let row = sqlx::query_as("SELECT * FROM cluster_observed WHERE cluster_id = $1")
            .bind(id)
            .fetch_optional(self.conn())
            .await?;
        Ok(row.unwrap_or_else(|| ClusterObserved::unseen(id)))
    }

    /// What is known of all clusters that have been seen.
    pub async fn clusters_observed(&mut self) -> Result<Vec<ClusterObserved>> {
        Ok(sqlx::query_as("SELECT * FROM cluster_observed").fetch_all(self.conn()).await?)
    }

    /// What is known of an organization's clusters that have been seen.
    pub async fn clusters_observed_of(&mut self, org: &OrgId) -> Result<Vec<ClusterObserved>> {
        Ok(sqlx::query_as(
            "SELECT o.* FROM cluster_observed o JOIN clusters c ON c.id = o.cluster_id \
             WHERE c.org_id = $1",
        )
        .bind(org)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Writes what is known of a cluster. For the controller.
    pub async fn set_cluster_observed(&mut self, observed: &ClusterObserved) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO cluster_observed (cluster_id, phase, message, observed_generation, \
             endpoint, server_name, steps, ready_ms, updated_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (cluster_id) DO UPDATE SET phase = excluded.phase, \
             message = excluded.message, observed_generation = excluded.observed_generation, \
             endpoint = excluded.endpoint, server_name = excluded.server_name, \
             steps = excluded.steps, ready_ms = excluded.ready_ms, \
             updated_ms = excluded.updated_ms",
        )
        .bind(&observed.cluster_id)
        .bind(observed.phase.as_str())
        .bind(&observed.message)
        .bind(observed.observed_generation)
        .bind(&observed.endpoint)
        .bind(&observed.server_name)
        .bind(json(&observed.steps))
        .bind(observed.ready_ms)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The controller has acted on that generation.
    Landed(Box<ClusterObserved>),
    /// The cluster is gone.
    Gone,
    /// Time is over; this is how far it got.
    TimedOut(Box<ClusterObserved>),
}

impl Db {
    /// Waits until the controller has acted on a generation of a cluster: "my change landed".
    pub async fn wait_for_generation(
        &self,
        id: &ClusterId,
        generation: i64,
        timeout: Duration,
    ) -> Result<Waited> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let mut tx = self.read().await?;
            let bell = tx.bell().await?;
            match tx.cluster(id).await {
                Err(DbError::NotFound { .. }) => return Ok(Waited::Gone),
                other => other?,
            };
            let observed = Box::new(tx.cluster_observed(id).await?);
            drop(tx);
            if observed.observed_generation >= generation {
                return Ok(Waited::Landed(observed));
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return Ok(Waited::TimedOut(observed));
            }
            self.wait_for_bell(bell, deadline - now).await?;
        }
    }
}
