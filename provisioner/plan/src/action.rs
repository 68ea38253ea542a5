//! What the planner may ask for. Each is idempotent in the executor's hands.

use std::net::Ipv4Addr;

use crate::{
    model::MemberKind,
    status::{ClusterStatus, GroupStatus},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a cluster's CA set.
    MakePki {
        /// Cluster id.
        cluster: String,
    },
    /// Reserve a place and ports for a member.
    PlaceMember {
        /// Cluster id.
        cluster: String,
        /// Kind.
        kind: MemberKind,
        /// Ordinal within the kind.
        ordinal: usize,
        /// Host id.
        host: String,
        /// Ports by purpose.
        ports: Vec<(&'static str, u16)>,
    },
    /// Make, or renew, a member's certificates.
    IssueCertificates {
        /// Cluster id.
        cluster: String,
        /// Member id.
        member: String,
    },
    /// Tell a member to run.
    StartMember {
        /// Cluster id.
        cluster: String,
        /// Member id.
        member: String,
    },
    /// Make a worker.
    CreateNode {
        /// Cluster id.
        cluster: String,
        /// Group id.
        group: String,
        /// Host id.
        host: String,
        /// Address in the VPC.
        address: Ipv4Addr,
    },
    /// Decide to remove a worker.
    RemoveNode {
        /// Cluster id.
        cluster: String,
        /// Node id.
        node: String,
        /// Why, in words.
        reason: String,
    },
    /// Forget a worker that is gone.
    ForgetNode {
        /// Cluster id.
        cluster: String,
        /// Node id.
        node: String,
    },
    /// Forget a node group that has no workers left.
    RemoveGroup {
        /// Cluster id.
        cluster: String,
        /// Group id.
        group: String,
    },
    /// Forget a cluster of which nothing is left.
    RemoveCluster {
        /// Cluster id.
        cluster: String,
    },
    /// Write a cluster's status.
    ReportCluster {
        /// Cluster id.
        cluster: String,
        /// What to write.
        status: ClusterStatus,
    },
    /// Write a node group's status.
    ReportGroup {
        /// Cluster id.
        cluster: String,
        /// Group id.
        group: String,
        /// What to write.
        status: GroupStatus,
    },
    /// Tell the customer.
    Event(NewEvent),
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Marina deals with it.
    Warning,
}

/// Something that a customer wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Cluster id.
    pub cluster: String,
    /// Stable kind.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub subject: String,
    /// A sentence.
    pub message: String,
}

impl Action {
    pub(crate) fn event(
        cluster: &str,
        kind: &'static str,
        severity: Severity,
        subject: String,
        message: String,
    ) -> Self {
        Self::Event(NewEvent { cluster: cluster.to_owned(), kind, severity, subject, message })
    }
}
