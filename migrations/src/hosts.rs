//! Management hosts: where tenants run.

use sqlx::{FromRow, Row, sqlite::SqliteRow};

use crate::{
    db::{Reader, Writer},
    error::{Result, conflict, found},
    ids::HostId,
    sql_types::{JsonText, json},
};

/// Whether a host can run workers with a driver.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostDriver {
    /// Driver, such as `qemu`.
    pub name: String,
    /// It can make workers.
    pub usable: bool,
    /// Why not, or how (for instance "KVM" or "TCG, slow"), in words.
    pub message: String,
}

/// A management host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Id.
    pub id: HostId,
    /// Unique name.
    pub name: String,
    /// Where its agent listens: `https://host:port`.
    pub agent_url: String,
    /// Failure zone.
    pub zone: String,
    /// New tenants may be placed on it.
    pub schedulable: bool,
    /// What the agent last reported.
    pub report: HostReport,
    /// When it was last heard (Unix ms), 0 for never.
    pub last_seen_ms: i64,
    /// Unix ms.
    pub created_ms: i64,
}

/// What an agent reports about its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostReport {
    /// Processors.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Free disk below the data directory, GiB.
    pub disk_gib: i64,
    /// First loopback port for members.
    pub port_min: u16,
    /// Last loopback port for members.
    pub port_max: u16,
    /// Public `host:port` of its gateway.
    pub gateway: String,
    /// What workers it can run.
    pub drivers: Vec<HostDriver>,
    /// What is wrong with the host, in words; empty when nothing is.
    pub message: String,
}

impl FromRow<'_, SqliteRow> for Host {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let port = |name| {
            let port: i64 = row.try_get(name)?;
            u16::try_from(port).map_err(|e| sqlx::Error::Decode(Box::new(e)))
        };
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            agent_url: row.try_get("agent_url")?,
            zone: row.try_get("zone")?,
            schedulable: row.try_get("schedulable")?,
            report: HostReport {
                vcpus: row.try_get("vcpus")?,
                memory_mib: row.try_get("memory_mib")?,
                disk_gib: row.try_get("disk_gib")?,
                port_min: port("port_min")?,
                port_max: port("port_max")?,
                gateway: row.try_get("gateway")?,
                drivers: row.try_get::<JsonText<_>, _>("drivers")?.0,
                message: row.try_get("message")?,
            },
            last_seen_ms: row.try_get("last_seen_ms")?,
            created_ms: row.try_get("created_ms")?,
        })
    }
}

impl Reader {
    /// All hosts by name.
    pub async fn hosts(&mut self) -> Result<Vec<Host>> {
        Ok(sqlx::query_as("SELECT * FROM hosts ORDER BY name").fetch_all(self.conn()).await?)
    }

    /// A host by name.
    pub async fn host_by_name(&mut self, name: &str) -> Result<Host> {
        let row = sqlx::query_as("SELECT * FROM hosts WHERE name = $1")
            .bind(name)
            .fetch_optional(self.conn())
            .await?;
        found(row, "host", name)
    }
}

impl Writer {
    /// Registers a host, or changes where its agent listens and its zone.
    pub async fn register_host(&mut self, name: &str, agent_url: &str, zone: &str) -> Result<Host> {
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO hosts (id, name, agent_url, zone, schedulable, vcpus, memory_mib, \
             disk_gib, port_min, port_max, gateway, drivers, message, last_seen_ms, created_ms) \
             VALUES ($1, $2, $3, $4, 1, 0, 0, 0, 0, 0, '', '[]', \
             'Its agent has not reported yet.', 0, $5) \
             ON CONFLICT (name) DO UPDATE SET agent_url = excluded.agent_url, zone = excluded.zone",
        )
        .bind(HostId::random())
        .bind(name)
        .bind(agent_url)
        .bind(zone)
        .bind(now)
        .execute(self.conn())
        .await?;
        self.host_by_name(name).await
    }

    /// Records what an agent reports about its host, and that it was heard now.
    pub async fn report_host(&mut self, id: &HostId, report: &HostReport) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE hosts SET vcpus = $2, memory_mib = $3, disk_gib = $4, port_min = $5, \
             port_max = $6, gateway = $7, drivers = $8, message = $9, last_seen_ms = $10 \
             WHERE id = $1",
        )
        .bind(id)
        .bind(report.vcpus)
        .bind(report.memory_mib)
        .bind(report.disk_gib)
        .bind(i64::from(report.port_min))
        .bind(i64::from(report.port_max))
        .bind(&report.gateway)
        .bind(json(&report.drivers))
        .bind(&report.message)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Allows or stops placing new tenants on a host.
    pub async fn set_host_schedulable(&mut self, id: &HostId, schedulable: bool) -> Result<()> {
        sqlx::query("UPDATE hosts SET schedulable = $2 WHERE id = $1")
            .bind(id)
            .bind(i64::from(schedulable))
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Removes a host. Conflict while something is placed on it.
    pub async fn remove_host(&mut self, id: &HostId) -> Result<()> {
        sqlx::query("DELETE FROM hosts WHERE id = $1")
            .bind(id)
            .execute(self.conn())
            .await
            .map_err(|e| conflict(e, "host", id.as_str(), "", "tenants are placed on it"))?;
        Ok(())
    }
}
