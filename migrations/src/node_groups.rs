//! Node groups: how many workers of which kind a customer wants (intent), and how many there are.

use std::collections::BTreeMap;

use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    clusters::Driver,
    db::{Reader, Writer},
    error::{DbError, Result, conflict, found},
    ids::{ClusterId, NodeGroupId},
    sql_types::{JsonText, json},
};

/// A taint of the group's nodes (core/v1 `Taint` without its time).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, may be empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What a customer may choose about a node group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NodeGroupSpec {
    /// Name, unique in the cluster; a DNS label.
    pub name: String,
    /// How many workers.
    pub desired: i64,
    /// How they run.
    pub driver: Driver,
    /// Virtual CPUs of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB.
    pub disk_gib: i64,
    /// Labels of their Nodes.
    pub labels: BTreeMap<String, String>,
    /// Taints of their Nodes.
    pub taints: Vec<Taint>,
}

/// A node group as a customer asked for it.
#[derive(Clone, Debug)]
pub struct NodeGroup {
    /// Id.
    pub id: NodeGroupId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// What was asked for.
    pub spec: NodeGroupSpec,
    /// Grows with each change of the intent.
    pub generation: i64,
    /// Unix ms.
    pub created_ms: i64,
    /// When deletion was asked for (Unix ms).
    pub deletion_requested_ms: Option<i64>,
}

impl FromRow<'_, SqliteRow> for NodeGroup {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            cluster_id: row.try_get("cluster_id")?,
            spec: NodeGroupSpec {
                name: row.try_get("name")?,
                desired: row.try_get("desired")?,
                driver: row.try_get("driver")?,
                vcpus: row.try_get("vcpus")?,
                memory_mib: row.try_get("memory_mib")?,
                disk_gib: row.try_get("disk_gib")?,
                labels: row.try_get::<JsonText<_>, _>("labels")?.0,
                taints: row.try_get::<JsonText<_>, _>("taints")?.0,
            },
            generation: row.try_get("generation")?,
            created_ms: row.try_get("created_ms")?,
            deletion_requested_ms: row.try_get("deletion_requested_ms")?,
        })
    }
}

/// A node group as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct NodeGroupObserved {
    /// Which group.
    pub group_id: NodeGroupId,
    /// The generation of the intent that has been acted on completely.
    pub observed_generation: i64,
    /// Workers that exist.
    pub total: i64,
    /// Workers whose Node is Ready.
    pub ready: i64,
    /// One sentence for people: what it waits for, or why it cannot go on.
    pub message: String,
    /// Unix ms.
    pub updated_ms: i64,
}

impl Reader {
    /// All node groups of the region, oldest first.
    pub async fn node_groups(&mut self) -> Result<Vec<NodeGroup>> {
        Ok(sqlx::query_as("SELECT * FROM node_groups ORDER BY created_ms, id")
            .fetch_all(self.conn())
            .await?)
    }

    /// All node groups of a cluster by name.
    pub async fn node_groups_of(&mut self, cluster: &ClusterId) -> Result<Vec<NodeGroup>> {
        Ok(sqlx::query_as("SELECT * FROM node_groups WHERE cluster_id = $1 ORDER BY name")
            .bind(cluster)
            .fetch_all(self.conn())
            .await?)
    }

    /// A node group of a cluster, by name or by id; a name comes before an id.
    pub async fn node_group_of(
        &mut self,
        cluster: &ClusterId,
        id_or_name: &str,
    ) -> Result<NodeGroup> {
        let row = sqlx::query_as(
            "SELECT * FROM node_groups WHERE cluster_id = $1 AND (id = $2 OR name = $2) \
             ORDER BY CASE WHEN name = $2 THEN 0 ELSE 1 END LIMIT 1",
        )
        .bind(cluster)
        .bind(id_or_name)
        .fetch_optional(self.conn())
        .await?;
        found(row, "node group", id_or_name)
    }

    /// What is known of all node groups that have been seen.
    pub async fn node_groups_observed(&mut self) -> Result<Vec<NodeGroupObserved>> {
        Ok(sqlx::query_as("SELECT * FROM node_group_observed").fetch_all(self.conn()).await?)
    }

    /// What is known of a node group; `None` until the controller has seen it.
    pub async fn node_group_observed(
        &mut self,
        id: &NodeGroupId,
    ) -> Result<Option<NodeGroupObserved>> {
        Ok(sqlx::query_as("SELECT * FROM node_group_observed WHERE group_id = $1")
            .bind(id)
            .fetch_optional(self.conn())
            .await?)
    }
}

impl Writer {
    /// Creates a node group. Conflict when the cluster has one of that name or with that name as
    /// its id.
    pub async fn create_node_group(
        &mut self,
        cluster: &ClusterId,
        spec: &NodeGroupSpec,
    ) -> Result<NodeGroup> {
        if self.node_group_of(cluster, &spec.name).await.is_ok_and(|g| g.spec.name != spec.name) {
            return Err(DbError::Conflict {
                noun: "node group",
                name: spec.name.clone(),
                reason: "the cluster has a node group with this id".to_owned(),
            });
        }
        let id = NodeGroupId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO node_groups (id, cluster_id, name, desired, driver, vcpus, memory_mib, \
             disk_gib, labels, taints, generation, created_ms, deletion_requested_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, $11, NULL)",
        )
        .bind(&id)
        .bind(cluster)
        .bind(&spec.name)
        .bind(spec.desired)
        .bind(spec.driver.as_str())
        .bind(spec.vcpus)
        .bind(spec.memory_mib)
        .bind(spec.disk_gib)
        .bind(json(&spec.labels))
        .bind(json(&spec.taints))
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| {
            let taken = "the cluster has a node group of this name";
            conflict(e, "node group", &spec.name, taken, "no such cluster")
        })?;
        self.node_group_of(cluster, id.as_str()).await
    }

    /// Changes how many workers are wanted; the generation grows if that is a change.
    pub async fn scale_node_group(
        &mut self,
        cluster: &ClusterId,
        id: &NodeGroupId,
        desired: i64,
    ) -> Result<NodeGroup> {
        sqlx::query(
            "UPDATE node_groups SET desired = $3, generation = generation + 1 \
             WHERE id = $1 AND cluster_id = $2 AND desired <> $3",
        )
        .bind(id)
        .bind(cluster)
        .bind(desired)
        .execute(self.conn())
        .await?;
        self.node_group_of(cluster, id.as_str()).await
    }

    /// Asks for deletion, once; the controller does it.
    pub async fn request_node_group_deletion(
        &mut self,
        cluster: &ClusterId,
        id: &NodeGroupId,
    ) -> Result<NodeGroup> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE node_groups SET deletion_requested_ms = $3, generation = generation + 1 \
             WHERE id = $1 AND cluster_id = $2 AND deletion_requested_ms IS NULL",
        )
        .bind(id)
        .bind(cluster)
        .bind(now)
        .execute(self.conn())
        .await?;
        self.node_group_of(cluster, id.as_str()).await
    }

    /// Removes a node group that has no nodes left. For the controller.
    pub async fn remove_node_group(&mut self, id: &NodeGroupId) -> Result<()> {
        sqlx::query("DELETE FROM node_groups WHERE id = $1").bind(id).execute(self.conn()).await?;
        Ok(())
    }

    /// Writes what is known of a node group. For the controller.
    pub async fn set_node_group_observed(&mut self, observed: &NodeGroupObserved) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO node_group_observed (group_id, observed_generation, total, ready, message, \
             updated_ms) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (group_id) DO UPDATE SET \
             observed_generation = excluded.observed_generation, total = excluded.total, \
             ready = excluded.ready, message = excluded.message, updated_ms = excluded.updated_ms",
        )
        .bind(&observed.group_id)
        .bind(observed.observed_generation)
        .bind(observed.total)
        .bind(observed.ready)
        .bind(&observed.message)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
