//! Clusters: what a customer asked for (intent). What became of it is in [`crate::observed`].
//!
//! A cluster's life in this table: created with generation 1; each change adds one; deletion is
//! requested (a time is set, and the generation grows); when everything that it had is gone the
//! controller removes the row, and the name is free again.

use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    db::{Reader, Writer},
    error::{DbError, Result, conflict, found},
    ids::{ClusterId, OrgId},
    sql_types::text_enum,
};

text_enum! {
    /// How many processes make up the control plane.
    ControlPlane("control plane") {
        /// One of each.
        Single = "single",
        /// Three etcd members, two of everything else.
        Ha = "ha",
    }
}

text_enum! {
    /// How a worker runs.
    Driver("worker driver") {
        /// A node in namespaces of the host: fast, not a security boundary.
        Sandbox = "sandbox",
        /// A QEMU virtual machine.
        Qemu = "qemu",
    }
}

/// What a customer may choose about a cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ClusterSpec {
    /// Name, unique in the organization; a DNS label.
    pub name: String,
    /// Kubernetes minor, such as `1.35`; one of the `versions` table.
    pub version: String,
    /// Single or highly available.
    pub control_plane: ControlPlane,
    /// Driver for node groups that do not choose one.
    pub driver: Driver,
    /// Addresses of pods, such as `10.244.0.0/16`.
    pub pod_cidr: String,
    /// Addresses of Services, such as `10.96.0.0/16`.
    pub service_cidr: String,
    /// Addresses of workers, such as `10.0.0.0/16`.
    pub vpc_cidr: String,
}

impl ClusterSpec {
    /// A cluster with the documented defaults.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.35".to_owned(),
            control_plane: ControlPlane::Single,
            driver: Driver::Qemu,
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            vpc_cidr: "10.0.0.0/16".to_owned(),
        }
    }
}

/// A cluster as a customer asked for it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Id; also its DNS label at the gateway.
    pub id: ClusterId,
    /// Owner.
    pub org_id: OrgId,
    /// What was asked for.
    pub spec: ClusterSpec,
    /// Grows with each change of the intent.
    pub generation: i64,
    /// Who asked.
    pub created_by: String,
    /// Unix ms.
    pub created_ms: i64,
    /// When deletion was asked for (Unix ms).
    pub deletion_requested_ms: Option<i64>,
}

impl FromRow<'_, SqliteRow> for Cluster {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            org_id: row.try_get("org_id")?,
            spec: ClusterSpec {
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                control_plane: row.try_get("control_plane")?,
                driver: row.try_get("driver")?,
                pod_cidr: row.try_get("pod_cidr")?,
                service_cidr: row.try_get("service_cidr")?,
                vpc_cidr: row.try_get("vpc_cidr")?,
            },
            generation: row.try_get("generation")?,
            created_by: row.try_get("created_by")?,
            created_ms: row.try_get("created_ms")?,
            deletion_requested_ms: row.try_get("deletion_requested_ms")?,
        })
    }
}

impl Reader {
    /// A cluster by id, of whichever organization.
    pub async fn cluster(&mut self, id: &ClusterId) -> Result<Cluster> {
        let row = sqlx::query_as("SELECT * FROM clusters WHERE id = $1")
            .bind(id)
            .fetch_optional(self.conn())
            .await?;
        found(row, "cluster", id.as_str())
    }

    /// A cluster of an organization, by name or by id; a name comes before an id. Another
    /// organization's is not found.
    pub async fn cluster_of(&mut self, org: &OrgId, id_or_name: &str) -> Result<Cluster> {
        let row = sqlx::query_as(
            "SELECT * FROM clusters WHERE org_id = $1 AND (id = $2 OR name = $2) \
             ORDER BY CASE WHEN name = $2 THEN 0 ELSE 1 END LIMIT 1",
        )
        .bind(org)
        .bind(id_or_name)
        .fetch_optional(self.conn())
        .await?;
        found(row, "cluster", id_or_name)
    }

    /// All clusters of an organization by name.
    pub async fn clusters_of(&mut self, org: &OrgId) -> Result<Vec<Cluster>> {
        Ok(sqlx::query_as("SELECT * FROM clusters WHERE org_id = $1 ORDER BY name")
            .bind(org)
            .fetch_all(self.conn())
            .await?)
    }

    /// All clusters of the region, oldest first.
    pub async fn clusters(&mut self) -> Result<Vec<Cluster>> {
        Ok(sqlx::query_as("SELECT * FROM clusters ORDER BY created_ms, id")
            .fetch_all(self.conn())
            .await?)
    }
}

impl Writer {
    /// Creates a cluster. Conflict when the organization has one of that name (also while that
    /// one is being deleted) or with that name as its id, or when the version is not on offer.
    pub async fn create_cluster(
        &mut self,
        org: &OrgId,
        spec: &ClusterSpec,
        created_by: &str,
    ) -> Result<Cluster> {
        if self.cluster_of(org, &spec.name).await.is_ok_and(|c| c.spec.name != spec.name) {
            return Err(DbError::Conflict {
                noun: "cluster",
                name: spec.name.clone(),
                reason: "the organization has a cluster with this id".to_owned(),
            });
        }
        let id = ClusterId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO clusters (id, org_id, name, version, control_plane, driver, pod_cidr, \
             service_cidr, vpc_cidr, generation, created_by, created_ms, deletion_requested_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11, NULL)",
        )
        .bind(&id)
        .bind(org)
        .bind(&spec.name)
        .bind(&spec.version)
        .bind(spec.control_plane.as_str())
        .bind(spec.driver.as_str())
        .bind(&spec.pod_cidr)
        .bind(&spec.service_cidr)
        .bind(&spec.vpc_cidr)
        .bind(created_by)
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| {
            conflict(
                e,
                "cluster",
                &spec.name,
                "the organization has a cluster of this name",
                "no such organization, or the version is not known",
            )
        })?;
        self.cluster(&id).await
    }

    /// Asks for deletion, once; the controller does it. Returns the cluster as it then is.
    pub async fn request_cluster_deletion(&mut self, id: &ClusterId) -> Result<Cluster> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE clusters SET deletion_requested_ms = $2, generation = generation + 1 \
             WHERE id = $1 AND deletion_requested_ms IS NULL",
        )
        .bind(id)
        .bind(now)
        .execute(self.conn())
        .await?;
        self.cluster(id).await
    }

    /// Removes a cluster that has nothing left, with its node groups and secrets. For the
    /// controller. Conflict unless deletion was requested.
    pub async fn remove_cluster(&mut self, id: &ClusterId) -> Result<()> {
        let cluster = self.cluster(id).await?;
        if cluster.deletion_requested_ms.is_none() {
            return Err(DbError::Conflict {
                noun: "cluster",
                name: id.to_string(),
                reason: "its deletion was not requested".to_owned(),
            });
        }
        self.delete_secrets_of(id.as_str()).await?;
        sqlx::query("DELETE FROM clusters WHERE id = $1").bind(id).execute(self.conn()).await?;
        Ok(())
    }
}
