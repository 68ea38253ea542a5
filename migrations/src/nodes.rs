//! Nodes: the workers that the controller made for a node group.

use sqlx::FromRow;

use crate::{
    clusters::Driver,
    db::{Reader, Writer},
    error::{Result, conflict},
    ids::{ClusterId, HostId, NodeGroupId, NodeId},
    sql_types::text_enum,
};

text_enum! {
    /// Where a worker is in its life.
    NodePhase("node phase") {
        /// Decided; its host has not reported it yet. Next: Booting.
        Pending = "pending",
        /// Its machine boots. Next: Joining, Exited, Failed.
        Booting = "booting",
        /// Its machine runs; its Node is not in the cluster yet. Next: Ready.
        Joining = "joining",
        /// Its Node is Ready. Next: NotReady, Exited, Deleting.
        Ready = "ready",
        /// Its Node is not Ready. Next: Ready, Exited, Deleting (replaced).
        NotReady = "not-ready",
        /// Its machine ended by itself; it is replaced. Next: Deleting.
        Exited = "exited",
        /// Its driver cannot make it; `message` says why. Next: Booting, Deleting.
        Failed = "failed",
        /// It is being removed; then the row is gone.
        Deleting = "deleting",
    }
}

/// A worker.
#[derive(Clone, Debug, FromRow)]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its node group.
    pub group_id: NodeGroupId,
    /// Name of its Node object.
    pub name: String,
    /// Where it runs.
    pub host_id: HostId,
    /// Address in the VPC, without prefix length.
    pub address: String,
    /// Hardware address.
    pub mac: String,
    /// How it runs.
    pub driver: Driver,
    /// Virtual CPUs.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Disk, GiB.
    pub disk_gib: i64,
    /// Phase.
    pub phase: NodePhase,
    /// Its Node has been Ready at least once.
    pub joined: bool,
    /// Its Node is Ready now.
    pub ready: bool,
    /// Why, in words.
    pub message: String,
    /// Since when it is in this phase (Unix ms).
    pub phase_since_ms: i64,
    /// Unix ms.
    pub created_ms: i64,
    /// When it was decided to remove it (Unix ms).
    pub deletion_requested_ms: Option<i64>,
    /// Why it is removed.
    pub deletion_reason: String,
}

/// A worker that is to be made.
#[derive(Clone, Debug)]
pub struct NewNode {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its node group.
    pub group_id: NodeGroupId,
    /// Name of its Node object, unique in the cluster.
    pub name: String,
    /// Where it runs.
    pub host_id: HostId,
    /// Address in the VPC, unique in the cluster.
    pub address: String,
    /// Hardware address.
    pub mac: String,
    /// How it runs.
    pub driver: Driver,
    /// Virtual CPUs.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Disk, GiB.
    pub disk_gib: i64,
}

/// What is seen of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Phase.
    pub phase: NodePhase,
    /// Its Node is Ready now.
    pub ready: bool,
    /// Why, in words.
    pub message: String,
}

impl Reader {
    /// All nodes of the region, oldest first.
    pub async fn nodes(&mut self) -> Result<Vec<Node>> {
        Ok(sqlx::query_as("SELECT * FROM nodes ORDER BY created_ms, name, id")
            .fetch_all(self.conn())
            .await?)
    }

    /// All nodes of a cluster, oldest first.
    pub async fn nodes_of(&mut self, cluster: &ClusterId) -> Result<Vec<Node>> {
        Ok(sqlx::query_as(
            "SELECT * FROM nodes WHERE cluster_id = $1 ORDER BY created_ms, name, id",
        )
        .bind(cluster)
        .fetch_all(self.conn())
        .await?)
    }
}

impl Writer {
    /// Makes a node. Conflict when its name or address is taken in the cluster.
    pub async fn create_node(&mut self, new: &NewNode) -> Result<NodeId> {
        let id = NodeId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO nodes (id, cluster_id, group_id, name, host_id, address, mac, driver, \
             vcpus, memory_mib, disk_gib, phase, joined, ready, message, phase_since_ms, \
             created_ms, deletion_requested_ms, deletion_reason) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'pending', 0, 0, '', $12, $12, \
             NULL, '')",
        )
        .bind(&id)
        .bind(&new.cluster_id)
        .bind(&new.group_id)
        .bind(&new.name)
        .bind(&new.host_id)
        .bind(&new.address)
        .bind(&new.mac)
        .bind(new.driver.as_str())
        .bind(new.vcpus)
        .bind(new.memory_mib)
        .bind(new.disk_gib)
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| {
            let reference = "no such cluster, node group or host";
            conflict(e, "node", &new.name, "its name or address is taken", reference)
        })?;
        Ok(id)
    }

    /// Records what is seen of a node.
    pub async fn report_node(&mut self, id: &NodeId, report: &NodeReport) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE nodes SET phase_since_ms = CASE WHEN phase = $2 THEN phase_since_ms ELSE $5 END, \
             phase = $2, ready = $3, joined = CASE WHEN $3 = 1 THEN 1 ELSE joined END, \
             message = $4 WHERE id = $1",
        )
        .bind(id)
        .bind(report.phase.as_str())
        .bind(i64::from(report.ready))
        .bind(&report.message)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Decides to remove a node, once. The row stays until its host says that it is gone.
    pub async fn request_node_deletion(&mut self, id: &NodeId, reason: &str) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE nodes SET deletion_requested_ms = $2, deletion_reason = $3, ready = 0, \
             phase = 'deleting', phase_since_ms = $2, message = $3 \
             WHERE id = $1 AND deletion_requested_ms IS NULL",
        )
        .bind(id)
        .bind(now)
        .bind(reason)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Forgets a node that is gone from its host, with its secrets.
    pub async fn forget_node(&mut self, id: &NodeId) -> Result<()> {
        self.delete_secrets_of(id.as_str()).await?;
        sqlx::query("DELETE FROM nodes WHERE id = $1").bind(id).execute(self.conn()).await?;
        Ok(())
    }
}
