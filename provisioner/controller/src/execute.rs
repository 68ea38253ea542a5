//! Carries planned actions out: each is a few rows, all of a pass in one transaction.

use std::{collections::HashMap, net::Ipv4Addr};

use anyhow::{Context, bail};
use ipnet::Ipv4Net;
use marina_db::{
    Writer,
    clusters::Cluster,
    events::{NewEvent, Severity},
    ids::random_hex,
    members::{Member, MemberKind, NewMember},
    node_groups::NodeGroupObserved,
    nodes::NewNode,
    observed::{ClusterObserved, ClusterPhase, Step, StepState},
    seal::Sealer,
};
use provisioner_pki::{ClusterPki, authority, members};
use provisioner_plan as plan;

use crate::{
    config::Settings,
    material::{self, AgentAccess, MemberFiles, NodeCredentials},
    member_spec,
    region::Region,
};

/// Executes actions against the picture that they were planned from.
pub(crate) struct Executor<'a> {
    pub region: &'a Region,
    pub sealer: &'a Sealer,
    pub settings: &'a Settings,
}

impl Executor<'_> {
    /// One action.
    pub async fn execute(&self, tx: &mut Writer, action: &plan::Action) -> anyhow::Result<()> {
        use plan::Action;
        match action {
            Action::MakePki { cluster } => self.make_pki(tx, cluster).await,
            Action::PlaceMember { cluster, kind, ordinal, host, ports } => {
                let new = NewMember {
                    cluster_id: cluster.as_str().into(),
                    kind: kind_to_db(*kind),
                    ordinal: i64::try_from(*ordinal)?,
                    host_id: host.as_str().into(),
                    ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
                };
                tx.place_member(&new).await?;
                Ok(())
            }
            Action::IssueCertificates { member, .. } => self.issue(tx, member).await,
            Action::StartMember { member, .. } => {
                Ok(tx.start_member(&member.as_str().into()).await?)
            }
            Action::CreateNode { cluster, group, host, address } => {
                self.create_node(tx, cluster, group, host, *address).await
            }
            Action::RemoveNode { node, reason, .. } => {
                Ok(tx.request_node_deletion(&node.as_str().into(), reason).await?)
            }
            Action::ForgetNode { node, .. } => Ok(tx.forget_node(&node.as_str().into()).await?),
            Action::RemoveGroup { group, .. } => {
                Ok(tx.remove_node_group(&group.as_str().into()).await?)
            }
            Action::RemoveCluster { cluster } => self.remove_cluster(tx, cluster).await,
            Action::ReportCluster { cluster, status } => {
                self.report_cluster(tx, cluster, status).await
            }
            Action::ReportGroup { group, status, .. } => {
                let observed = NodeGroupObserved {
                    group_id: group.as_str().into(),
                    observed_generation: status.observed_generation,
                    total: i64::try_from(status.total)?,
                    ready: i64::try_from(status.ready)?,
                    message: status.message.clone(),
                    updated_ms: tx.now_ms(),
                };
                Ok(tx.set_node_group_observed(&observed).await?)
            }
            Action::Event(event) => {
                let cluster = self.region.cluster(&event.cluster)?;
                record(tx, cluster, event).await
            }
        }
    }

    async fn make_pki(&self, tx: &mut Writer, cluster: &str) -> anyhow::Result<()> {
        let now = tx.now_ms() / 1000;
        let pki = ClusterPki::new(cluster, now)?;
        tx.set_secret(self.sealer, cluster, material::PKI, &pki.to_json()).await?;
        self.renew_agent_access(tx, cluster, &pki).await
    }

    /// A new certificate for the agent's own work inside a tenant.
    pub async fn renew_agent_access(
        &self,
        tx: &mut Writer,
        cluster: &str,
        pki: &ClusterPki,
    ) -> anyhow::Result<()> {
        let now = tx.now_ms() / 1000;
        let valid = material::AGENT_VALID_SECS;
        let group = Some(provisioner_pki::ADMIN_GROUP);
        let client = pki.client("marina:admin", group, valid, now)?;
        let access = AgentAccess { until: authority::not_after_unix(&client.cert_pem)?, client };
        let json = serde_json::to_vec(&access)?;
        Ok(tx.set_secret(self.sealer, cluster, material::AGENT, &json).await?)
    }

    async fn issue(&self, tx: &mut Writer, id: &str) -> anyhow::Result<()> {
        let member = self.region.members.iter().find(|m| m.id.as_str() == id);
        let member = member.with_context(|| format!("member {id}"))?;
        let cluster = self.region.cluster(member.cluster_id.as_str())?;
        let pki = self.region.pki.get(cluster.id.as_str()).context("cluster without CAs")?;
        let now = tx.now_ms() / 1000;
        let mut files = self.files(cluster, member, pki, now)?;
        files.extend(member_spec::plain_files(member.kind));
        let stored = MemberFiles { until: now + members::MEMBER_VALID_SECS, files };
        let json = serde_json::to_vec(&stored)?;
        Ok(tx.set_secret(self.sealer, id, material::FILES, &json).await?)
    }

    fn files(
        &self,
        cluster: &Cluster,
        member: &Member,
        pki: &ClusterPki,
        now: i64,
    ) -> anyhow::Result<members::Files> {
        let files = match member.kind {
            MemberKind::Etcd => members::etcd(pki, now)?,
            MemberKind::ApiServer => {
                let names = member_spec::api_server_names(cluster, self.settings)?;
                members::api_server(pki, &names, now)?
            }
            MemberKind::ControllerManager | MemberKind::Scheduler => {
                let url = member_spec::api_server_url(self.region, member)?;
                match member.kind {
                    MemberKind::Scheduler => members::scheduler(pki, &url, now)?,
                    _ => members::controller_manager(pki, &url, now)?,
                }
            }
        };
        Ok(files)
    }

    async fn create_node(
        &self,
        tx: &mut Writer,
        cluster: &str,
        group: &str,
        host: &str,
        address: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let group = self.region.groups.iter().find(|g| g.id.as_str() == group);
        let group = group.context("node group")?;
        let cluster = self.region.cluster(cluster)?;
        let pki = self.region.pki.get(cluster.id.as_str()).context("cluster without CAs")?;
        let vpc: Ipv4Net = cluster.spec.vpc_cidr.parse()?;
        let name = format!("{}-{}", group.spec.name, &random_hex(3)[..5]);
        let new = NewNode {
            cluster_id: cluster.id.clone(),
            group_id: group.id.clone(),
            name: name.clone(),
            host_id: host.into(),
            address: address.to_string(),
            mac: mac(vpc, address),
            driver: group.spec.driver,
            vcpus: group.spec.vcpus,
            memory_mib: group.spec.memory_mib,
            disk_gib: group.spec.disk_gib,
        };
        let id = tx.create_node(&new).await?;
        let now = tx.now_ms() / 1000;
        let valid = material::NODE_VALID_SECS;
        let kube_proxy = pki.client("system:kube-proxy", None, valid, now)?;
        let credentials = serde_json::to_vec(&NodeCredentials::new(kube_proxy))?;
        tx.set_secret(self.sealer, id.as_str(), material::NODE, &credentials).await?;
        let event = plan::NewEvent {
            cluster: cluster.id.to_string(),
            kind: "NodeCreated",
            severity: plan::Severity::Info,
            subject: format!("node/{name}"),
            message: format!("Worker {name} is being made ({} driver).", group.spec.driver),
        };
        record(tx, cluster, &event).await
    }

    async fn remove_cluster(&self, tx: &mut Writer, id: &str) -> anyhow::Result<()> {
        for member in self.region.members_of(id) {
            tx.delete_secrets_of(member.id.as_str()).await?;
        }
        for node in self.region.nodes_of(id) {
            tx.delete_secrets_of(node.id.as_str()).await?;
        }
        Ok(tx.remove_cluster(&id.into()).await?)
    }

    async fn report_cluster(
        &self,
        tx: &mut Writer,
        id: &str,
        status: &plan::ClusterStatus,
    ) -> anyhow::Result<()> {
        let gateway = self
            .region
            .members_of(id)
            .find(|member| member.kind == MemberKind::ApiServer)
            .and_then(|member| self.region.hosts.iter().find(|host| host.id == member.host_id))
            .map(|host| host.report.gateway.clone());
        let before = self.region.observed.get(id);
        let endpoint = match (gateway, before) {
            (Some(gateway), _) if !gateway.is_empty() => format!("https://{gateway}"),
            (_, Some(before)) => before.endpoint.clone(),
            _ => String::new(),
        };
        let observed = ClusterObserved {
            cluster_id: id.into(),
            phase: phase_to_db(status.phase),
            message: status.message.clone(),
            observed_generation: status.observed_generation,
            endpoint,
            server_name: self.settings.server_name(id),
            steps: status.steps.iter().map(step_to_db).collect(),
            ready_ms: status.ready_ms,
            updated_ms: tx.now_ms(),
        };
        Ok(tx.set_cluster_observed(&observed).await?)
    }
}

/// Records an event.
pub(crate) async fn record(
    tx: &mut Writer,
    cluster: &Cluster,
    event: &plan::NewEvent,
) -> anyhow::Result<()> {
    let severity = match event.severity {
        plan::Severity::Info => Severity::Info,
        plan::Severity::Warning => Severity::Warning,
    };
    tracing::info!(cluster.id = %cluster.id, kind = event.kind, subject = event.subject,
        message = event.message, "event");
    let new = NewEvent {
        org_id: cluster.org_id.clone(),
        cluster_id: cluster.id.clone(),
        kind: event.kind.to_owned(),
        severity,
        subject: match event.subject.as_str() {
            "cluster" => format!("cluster/{}", cluster.spec.name),
            other => other.to_owned(),
        },
        message: event.message.clone(),
    };
    Ok(tx.record_event(&new).await?)
}

/// A locally administered address that is unique in the VPC because the IP address is.
fn mac(vpc: Ipv4Net, address: Ipv4Addr) -> String {
    let offset = u32::from(address).wrapping_sub(u32::from(vpc.network()));
    let [_, a, b, c] = offset.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The ranges of workers and of pods. Checks what the planner relies on; what is wrong is the
/// cluster's message.
pub(crate) fn ranges_of(cluster: &Cluster) -> anyhow::Result<(Ipv4Net, Ipv4Net)> {
    let net = |text: &str| text.parse::<Ipv4Net>().with_context(|| format!("CIDR {text:?}"));
    let (vpc, pods, services) = (
        net(&cluster.spec.vpc_cidr)?,
        net(&cluster.spec.pod_cidr)?,
        net(&cluster.spec.service_cidr)?,
    );
    for (a, b) in [(vpc, pods), (vpc, services), (pods, services)] {
        if a.contains(&b.network()) || b.contains(&a.network()) {
            bail!("{a} and {b} overlap");
        }
    }
    if vpc.prefix_len() > 22 {
        bail!("VPC CIDR {vpc} is smaller than /22");
    }
    Ok((vpc, pods))
}

fn kind_to_db(kind: plan::MemberKind) -> MemberKind {
    match kind {
        plan::MemberKind::Etcd => MemberKind::Etcd,
        plan::MemberKind::ApiServer => MemberKind::ApiServer,
        plan::MemberKind::ControllerManager => MemberKind::ControllerManager,
        plan::MemberKind::Scheduler => MemberKind::Scheduler,
    }
}

fn phase_to_db(phase: plan::Phase) -> ClusterPhase {
    match phase {
        plan::Phase::Pending => ClusterPhase::Pending,
        plan::Phase::Provisioning => ClusterPhase::Provisioning,
        plan::Phase::Ready => ClusterPhase::Ready,
        plan::Phase::Degraded => ClusterPhase::Degraded,
        plan::Phase::Deleting => ClusterPhase::Deleting,
    }
}

fn step_to_db(step: &plan::Step) -> Step {
    Step {
        name: step.name.clone(),
        title: step.title.clone(),
        state: match step.state {
            plan::StepState::Waiting => StepState::Waiting,
            plan::StepState::Running => StepState::Running,
            plan::StepState::Done => StepState::Done,
            plan::StepState::Failed => StepState::Failed,
        },
        message: step.message.clone(),
        started_ms: step.started_ms,
        finished_ms: step.finished_ms,
    }
}

/// Seen states by member id, for the planner.
pub(crate) fn certificates_until_ms(files: &HashMap<String, MemberFiles>, id: &str) -> Option<i64> {
    files
        .get(id)
        .map(|files| if files.is_complete() { files.until.saturating_mul(1000) } else { 0 })
}
