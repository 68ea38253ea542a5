//! Everything that the database knows, read at once.

use std::collections::HashMap;

use anyhow::Context;
use marina_db::{
    Reader,
    clusters::Cluster,
    hosts::Host,
    members::Member,
    node_groups::{NodeGroup, NodeGroupObserved},
    nodes::Node,
    observed::ClusterObserved,
    seal::Sealer,
};
use provisioner_pki::ClusterPki;
use serde::de::DeserializeOwned;

use crate::material::{self, AgentAccess, MemberFiles, NodeCredentials};

/// A consistent picture of the region.
#[derive(Debug)]
pub(crate) struct Region {
    /// The doorbell of this picture.
    pub bell: i64,
    /// When it was read (Unix ms).
    pub now_ms: i64,
    pub clusters: Vec<Cluster>,
    pub observed: HashMap<String, ClusterObserved>,
    pub members: Vec<Member>,
    pub groups: Vec<NodeGroup>,
    pub groups_observed: HashMap<String, NodeGroupObserved>,
    pub nodes: Vec<Node>,
    pub hosts: Vec<Host>,
    pub pki: HashMap<String, ClusterPki>,
    pub agent_access: HashMap<String, AgentAccess>,
    pub member_files: HashMap<String, MemberFiles>,
    pub node_credentials: HashMap<String, NodeCredentials>,
}

impl Region {
    pub async fn read(tx: &mut Reader, sealer: &Sealer) -> anyhow::Result<Self> {
        let observed = tx.clusters_observed().await?;
        let groups_observed = tx.node_groups_observed().await?;
        let pki = tx.secrets_named(sealer, material::PKI).await?;
        let pki = pki
            .into_iter()
            .map(|(owner, json)| Ok((owner, ClusterPki::from_json(&json)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            bell: tx.bell().await?,
            now_ms: tx.now_ms(),
            clusters: tx.clusters().await?,
            observed: observed.into_iter().map(|o| (o.cluster_id.to_string(), o)).collect(),
            members: tx.members().await?,
            groups: tx.node_groups().await?,
            groups_observed: groups_observed
                .into_iter()
                .map(|o| (o.group_id.to_string(), o))
                .collect(),
            nodes: tx.nodes().await?,
            hosts: tx.hosts().await?,
            pki,
            agent_access: sealed(tx, sealer, material::AGENT).await?,
            member_files: sealed(tx, sealer, material::FILES).await?,
            node_credentials: sealed(tx, sealer, material::NODE).await?,
        })
    }

    pub fn cluster(&self, id: &str) -> anyhow::Result<&Cluster> {
        self.clusters
            .iter()
            .find(|cluster| cluster.id.as_str() == id)
            .with_context(|| format!("cluster {id} is not in the picture"))
    }

    pub fn members_of(&self, cluster: &str) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.cluster_id.as_str() == cluster)
    }

    pub fn nodes_of(&self, cluster: &str) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.cluster_id.as_str() == cluster)
    }
}

async fn sealed<T: DeserializeOwned>(
    tx: &mut Reader,
    sealer: &Sealer,
    name: &str,
) -> anyhow::Result<HashMap<String, T>> {
    let rows = tx.secrets_named(sealer, name).await?;
    rows.into_iter()
        .map(|(owner, json)| {
            let value = serde_json::from_slice(&json)
                .with_context(|| format!("secret {owner}/{name} has an unknown form"))?;
            Ok((owner, value))
        })
        .collect()
}
