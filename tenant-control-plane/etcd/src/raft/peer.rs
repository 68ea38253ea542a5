//! What the other members ask of this one.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::consensus::ProposeError;
use crate::compare;
use crate::node::Node;
use crate::pb;
use crate::pb::peer_server::Peer;
use crate::pb::snapshot_chunk::Part;
use crate::threads;

/// The peer service of a member.
pub struct PeerService {
    node: Arc<Node>,
}

impl PeerService {
    /// Serves this member.
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Peer for PeerService {
    async fn append(&self, r: Request<pb::AppendRequest>) -> Answer<pb::AppendResponse> {
        let answer = self.node.consensus.on_append(r.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn vote(&self, r: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        let answer = self.node.consensus.on_vote(r.into_inner(), false).await?;
        Ok(Response::new(answer))
    }

    async fn pre_vote(&self, r: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        let answer = self.node.consensus.on_vote(r.into_inner(), true).await?;
        Ok(Response::new(answer))
    }

    async fn transfer_leader(
        &self,
        r: Request<pb::TransferRequest>,
    ) -> Answer<pb::TransferResponse> {
        let answer = self.node.consensus.on_transfer(r.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn install_snapshot(
        &self,
        r: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Answer<pb::SnapshotAck> {
        let mut stream = r.into_inner();
        let bad = |what: &str| Status::invalid_argument(format!("snapshot: {what}"));
        let Some(Part::Head(head)) = stream.message().await?.and_then(|c| c.part) else {
            return Err(bad("the head comes first"));
        };
        let consensus = &self.node.consensus;
        let state = head.state.as_ref().ok_or_else(|| bad("no state"))?;
        let mut receiving = consensus.machine_for(&head)?.receive(state);
        loop {
            match stream.message().await?.and_then(|c| c.part) {
                Some(Part::Items(items)) => {
                    let added =
                        threads::block(move || receiving.add(items.keys).map(|()| receiving));
                    receiving = added.await?.map_err(|e| bad(&e.to_string()))?;
                }
                Some(Part::End(end)) => {
                    let received = receiving.finish(end.keys).map_err(|e| bad(&e.to_string()))?;
                    tracing::info!(keys = end.keys, "received a snapshot");
                    let ack = consensus.on_snapshot(head, received).await?;
                    return Ok(Response::new(ack));
                }
                Some(Part::Head(_)) => return Err(bad("a second head")),
                None => return Err(bad("it ended early")),
            }
        }
    }

    async fn forward(&self, r: Request<pb::ForwardRequest>) -> Answer<pb::ForwardResponse> {
        let answer = match self.node.consensus.propose(r.into_inner().batch).await {
            Ok(()) => pb::ForwardResponse { accepted: true, leader: 0 },
            Err(ProposeError::NotLeader(leader)) => {
                pb::ForwardResponse { accepted: false, leader: leader.unwrap_or(0) }
            }
            Err(_) => return Err(Status::unavailable("the outcome is not known")),
        };
        Ok(Response::new(answer))
    }

    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Answer<pb::ReadIndexResponse> {
        let index = self.node.consensus.read_index().await;
        Ok(Response::new(pb::ReadIndexResponse { ready: index.is_ok(), index: index.unwrap_or(0) }))
    }

    async fn lease_renew(&self, r: Request<pb::LeaseTimeRequest>) -> Answer<pb::LeaseTimeResponse> {
        self.node.renew_here(r.into_inner().id).await.map(Response::new)
    }

    async fn lease_time(&self, r: Request<pb::LeaseTimeRequest>) -> Answer<pb::LeaseTimeResponse> {
        self.node.lease_time_here(r.into_inner().id).await.map(Response::new)
    }

    async fn digest(&self, r: Request<pb::DigestRequest>) -> Answer<pb::DigestResponse> {
        Ok(Response::new(compare::answer(&self.node, r.get_ref().index).await))
    }

    async fn identify(&self, r: Request<pb::IdentifyRequest>) -> Answer<pb::IdentifyResponse> {
        let urls = r.into_inner().peer_urls;
        let (_, cluster_id) = self.node.consensus.ids();
        let members = self.node.consensus.members();
        let known = members
            .into_iter()
            .find(|(_, peer_urls, _)| peer_urls.iter().any(|u| urls.contains(u)));
        Ok(Response::new(pb::IdentifyResponse {
            member_id: known.map_or(0, |(id, ..)| id),
            cluster_id,
        }))
    }
}
