//! Members.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::cluster_client::ClusterClient;
use etcd_api::pb::etcdserverpb::cluster_server::Cluster;
use etcd_api::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::Answer;
use super::caller::{administrator, somebody};
use crate::config::member_id;
use crate::node::Node;
use crate::pb;
use crate::pb::proposal::Op;

/// The Cluster service. Changes are made by the leader; it is served on the peer URL as well, so
/// that the other members can pass a client's request on.
pub struct ClusterService {
    /// The member.
    pub node: Arc<Node>,
    /// Other members ask: they have looked who is behind it.
    pub for_members: bool,
}

impl ClusterService {
    /// All members as clients see them: raft knows who they are, the state knows their names.
    pub fn members(&self) -> Vec<Member> {
        let state = self.node.machine.read();
        self.node
            .consensus
            .members()
            .into_iter()
            .map(|(id, peer_ur_ls, is_learner)| {
                let info = state.members.get(&id);
                Member {
                    id,
                    name: info.map(|m| m.name.clone()).unwrap_or_default(),
                    peer_ur_ls,
                    client_ur_ls: info.map(|m| m.client_urls.clone()).unwrap_or_default(),
                    // A member that was added with a vote and is still catching up.
                    is_learner: is_learner && !info.is_some_and(|m| m.promote),
                }
            })
            .collect()
    }

    async fn administered<T>(&self, r: &Request<T>) -> Result<(), Status> {
        if !self.for_members {
            administrator(&self.node, r).await?;
        }
        Ok(())
    }

    fn find(&self, id: u64) -> Result<Member, Status> {
        self.members()
            .into_iter()
            .find(|m| m.id == id)
            .ok_or_else(|| EtcdError::MemberNotFound.into())
    }

    /// A client of the leader's Cluster service, if another member leads.
    fn leader(&self) -> Result<Option<ClusterClient<tonic::transport::Channel>>, Status> {
        let status = self.node.consensus.status();
        match status.leader {
            _ if status.is_leader => Ok(None),
            Some(leader) => self.node.consensus.cluster_client(leader).map(Some),
            None => Err(EtcdError::NoLeader.into()),
        }
    }
}

fn check_urls(urls: &[String]) -> Result<(), EtcdError> {
    let good = |url: &String| {
        url.parse::<http::Uri>().is_ok_and(|u| {
            matches!(u.scheme_str(), Some("http" | "https"))
                && u.host().is_some()
                && u.port().is_some()
        })
    };
    if !urls.is_empty() && urls.iter().all(good) { Ok(()) } else { Err(EtcdError::MemberBadUrls) }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(&self, r: Request<MemberAddRequest>) -> Answer<MemberAddResponse> {
        self.administered(&r).await?;
        if let Some(mut leader) = self.leader()? {
            return leader.member_add(r.into_inner()).await;
        }
        let r = r.into_inner();
        check_urls(&r.peer_ur_ls)?;
        let members = self.members();
        let taken = |m: &Member| m.peer_ur_ls.iter().any(|u| r.peer_ur_ls.contains(u));
        if members.iter().any(taken) {
            return Err(EtcdError::PeerUrlExists.into());
        }
        let learners = members.iter().filter(|m| m.is_learner).count();
        if r.is_learner && learners >= self.node.config.max_learners {
            return Err(EtcdError::TooManyLearners.into());
        }
        // A member that is removed and added again is another member: the time tells them apart.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = member_id(&r.peer_ur_ls, &now.as_nanos().to_string());
        // Everybody begins as a learner, so that a member that never starts costs no quorum; one
        // that was added with a vote gets it in the background.
        let urls = r.peer_ur_ls.clone();
        self.node.consensus.add_learner(id, urls).await?;
        if !r.is_learner {
            let info =
                pb::MemberInfo { id, peer_urls: r.peer_ur_ls, promote: true, ..Default::default() };
            self.node.propose(Op::Publish(info)).await?;
        }
        // The view of the membership follows the log after a moment.
        let seen = tokio::time::Instant::now();
        while self.find(id).is_err() && seen.elapsed().as_secs() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(Response::new(MemberAddResponse {
            header: self.node.header_now(),
            member: Some(self.find(id)?),
            members: self.members(),
        }))
    }

    async fn member_remove(&self, r: Request<MemberRemoveRequest>) -> Answer<MemberRemoveResponse> {
        self.administered(&r).await?;
        if let Some(mut leader) = self.leader()? {
            return leader.member_remove(r.into_inner()).await;
        }
        let id = r.get_ref().id;
        let member = self.find(id)?;
        let voters = self.members().iter().filter(|m| !m.is_learner).count();
        if !member.is_learner && voters == 1 {
            return Err(EtcdError::NotEnoughStarted.into());
        }
        self.node.consensus.remove(id).await?;
        self.node.propose(Op::ForgetMember(id)).await?;
        Ok(Response::new(MemberRemoveResponse {
            header: self.node.header_now(),
            members: self.members(),
        }))
    }

    async fn member_update(&self, r: Request<MemberUpdateRequest>) -> Answer<MemberUpdateResponse> {
        self.administered(&r).await?;
        if let Some(mut leader) = self.leader()? {
            return leader.member_update(r.into_inner()).await;
        }
        let r = r.into_inner();
        check_urls(&r.peer_ur_ls)?;
        self.find(r.id)?;
        self.node.consensus.update(r.id, r.peer_ur_ls).await?;
        Ok(Response::new(MemberUpdateResponse {
            header: self.node.header_now(),
            members: self.members(),
        }))
    }

    async fn member_list(&self, r: Request<MemberListRequest>) -> Answer<MemberListResponse> {
        if r.get_ref().linearizable {
            self.node.linearize().await?;
        }
        if !self.for_members {
            somebody(&self.node, &r).await?;
        }
        Ok(Response::new(MemberListResponse {
            header: self.node.header_now(),
            members: self.members(),
        }))
    }

    async fn member_promote(
        &self,
        r: Request<MemberPromoteRequest>,
    ) -> Answer<MemberPromoteResponse> {
        self.administered(&r).await?;
        if let Some(mut leader) = self.leader()? {
            return leader.member_promote(r.into_inner()).await;
        }
        let id = r.get_ref().id;
        if !self.find(id)?.is_learner {
            return Err(EtcdError::MemberNotLearner.into());
        }
        if !self.node.consensus.is_caught_up(id) {
            return Err(EtcdError::LearnerNotReady.into());
        }
        self.node.consensus.promote(id).await?;
        Ok(Response::new(MemberPromoteResponse {
            header: self.node.header_now(),
            members: self.members(),
        }))
    }
}
