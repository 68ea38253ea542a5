//! Members: the processes of a control plane, where they run and on which loopback ports.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::{Result, conflict},
    ids::{ClusterId, HostId, MemberId},
    sql_types::text_enum,
};

text_enum! {
    /// Which process of a control plane.
    MemberKind("member kind") {
        /// The store.
        Etcd = "etcd",
        /// The API.
        ApiServer = "kube-apiserver",
        /// The controllers.
        ControllerManager = "kube-controller-manager",
        /// The scheduler.
        Scheduler = "kube-scheduler",
    }
}

text_enum! {
    /// State of a member's process, as its host's agent reports it.
    MemberState("member state") {
        /// Placed; its turn has not come, or the agent has not reported it. Next: Starting.
        Waiting = "waiting",
        /// Its process runs and is not ready yet. Next: Ready, Failed.
        Starting = "starting",
        /// Its health endpoint says ready. Next: Starting (restarted), Failed.
        Ready = "ready",
        /// Its process ended, or cannot be started; it is started again. Next: Starting.
        Failed = "failed",
    }
}

/// One process of a control plane.
#[derive(Clone, Debug)]
pub struct Member {
    /// Id.
    pub id: MemberId,
    /// Whose it is.
    pub cluster_id: ClusterId,
    /// Which process.
    pub kind: MemberKind,
    /// 0, 1, 2 … within the kind.
    pub ordinal: i64,
    /// Where it runs.
    pub host_id: HostId,
    /// It has been told to run.
    pub started: bool,
    /// What the agent reports.
    pub state: MemberState,
    /// Why, in words.
    pub message: String,
    /// Process id on its host, 0 when it does not run.
    pub pid: i64,
    /// How often it was started again since the agent knows it.
    pub restarts: i64,
    /// When this last changed (Unix ms).
    pub updated_ms: i64,
    /// Loopback ports by purpose (`client`, `peer`, `metrics`, `secure`).
    pub ports: Vec<(String, u16)>,
}

impl Member {
    /// The port of a purpose.
    pub fn port(&self, purpose: &str) -> Option<u16> {
        self.ports.iter().find(|(name, _)| name == purpose).map(|(_, port)| *port)
    }
}

#[derive(FromRow)]
struct MemberRow {
    id: MemberId,
    cluster_id: ClusterId,
    kind: MemberKind,
    ordinal: i64,
    host_id: HostId,
    started: bool,
    state: MemberState,
    message: String,
    pid: i64,
    restarts: i64,
    updated_ms: i64,
}

impl MemberRow {
    fn with_ports(self, ports: Vec<(String, u16)>) -> Member {
        Member {
            id: self.id,
            cluster_id: self.cluster_id,
            kind: self.kind,
            ordinal: self.ordinal,
            host_id: self.host_id,
            started: self.started,
            state: self.state,
            message: self.message,
            pid: self.pid,
            restarts: self.restarts,
            updated_ms: self.updated_ms,
            ports,
        }
    }
}

/// A member that is to be placed.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Whose it is.
    pub cluster_id: ClusterId,
    /// Which process.
    pub kind: MemberKind,
    /// 0, 1, 2 … within the kind.
    pub ordinal: i64,
    /// Where it runs.
    pub host_id: HostId,
    /// Loopback ports by purpose.
    pub ports: Vec<(String, u16)>,
}

/// What an agent reports about a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// State.
    pub state: MemberState,
    /// Why, in words.
    pub message: String,
    /// Process id, 0 when it does not run.
    pub pid: i64,
    /// Restarts so far.
    pub restarts: i64,
}

impl Reader {
    /// All members of the region.
    pub async fn members(&mut self) -> Result<Vec<Member>> {
        let rows = sqlx::query_as("SELECT * FROM members ORDER BY cluster_id, kind, ordinal")
            .fetch_all(self.conn())
            .await?;
        let ports = sqlx::query_as(
            "SELECT member_id, purpose, port FROM ports ORDER BY member_id, purpose",
        )
        .fetch_all(self.conn())
        .await?;
        Ok(join(rows, ports))
    }

    /// All members of a cluster.
    pub async fn members_of(&mut self, cluster: &ClusterId) -> Result<Vec<Member>> {
        let rows =
            sqlx::query_as("SELECT * FROM members WHERE cluster_id = $1 ORDER BY kind, ordinal")
                .bind(cluster)
                .fetch_all(self.conn())
                .await?;
        let ports = sqlx::query_as(
            "SELECT p.member_id, p.purpose, p.port FROM ports p \
             JOIN members m ON m.id = p.member_id WHERE m.cluster_id = $1 \
             ORDER BY p.member_id, p.purpose",
        )
        .bind(cluster)
        .fetch_all(self.conn())
        .await?;
        Ok(join(rows, ports))
    }
}

fn join(rows: Vec<MemberRow>, ports: Vec<(MemberId, String, i64)>) -> Vec<Member> {
    let mut by_member = std::collections::HashMap::<MemberId, Vec<(String, u16)>>::new();
    for (member, purpose, port) in ports {
        let port = u16::try_from(port).unwrap_or(0);
        by_member.entry(member).or_default().push((purpose, port));
    }
    rows.into_iter()
        .map(|row| {
            let ports = by_member.remove(&row.id).unwrap_or_default();
            row.with_ports(ports)
        })
        .collect()
}

impl Writer {
    /// Places a member and takes its ports. Conflict when the cluster has it already or a port is
    /// taken on that host.
    pub async fn place_member(&mut self, new: &NewMember) -> Result<MemberId> {
        let id = MemberId::random();
        let now = self.now_ms();
        let name = format!("{}/{}-{}", new.cluster_id, new.kind, new.ordinal);
        let taken = "it is placed already, or one of its ports is taken";
        sqlx::query(
            "INSERT INTO members (id, cluster_id, kind, ordinal, host_id, started, state, message, \
             pid, restarts, updated_ms) VALUES ($1, $2, $3, $4, $5, 0, 'waiting', '', 0, 0, $6)",
        )
        .bind(&id)
        .bind(&new.cluster_id)
        .bind(new.kind.as_str())
        .bind(new.ordinal)
        .bind(&new.host_id)
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| conflict(e, "member", &name, taken, "no such cluster or host"))?;
        for (purpose, port) in &new.ports {
            sqlx::query(
                "INSERT INTO ports (host_id, port, member_id, purpose) VALUES ($1, $2, $3, $4)",
            )
            .bind(&new.host_id)
            .bind(i64::from(*port))
            .bind(&id)
            .bind(purpose)
            .execute(self.conn())
            .await
            .map_err(|e| conflict(e, "member", &name, taken, "no such host"))?;
        }
        Ok(id)
    }

    /// Tells a member to run.
    pub async fn start_member(&mut self, id: &MemberId) -> Result<()> {
        sqlx::query("UPDATE members SET started = 1 WHERE id = $1")
            .bind(id)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Records what an agent reports about a member.
    pub async fn report_member(&mut self, id: &MemberId, report: &MemberReport) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "UPDATE members SET state = $2, message = $3, pid = $4, restarts = $5, updated_ms = $6 \
             WHERE id = $1",
        )
        .bind(id)
        .bind(report.state.as_str())
        .bind(&report.message)
        .bind(report.pid)
        .bind(report.restarts)
        .bind(now)
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Forgets a member that is gone from its host, and frees its ports.
    pub async fn forget_member(&mut self, id: &MemberId) -> Result<()> {
        sqlx::query("DELETE FROM members WHERE id = $1").bind(id).execute(self.conn()).await?;
        Ok(())
    }
}
