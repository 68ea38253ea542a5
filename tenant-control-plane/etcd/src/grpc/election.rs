//! Elections.

use std::sync::Arc;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::PutRequest;
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::v3electionpb::election_server::Election;
use etcd_api::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Answer;
use super::caller::Credentials;
use super::line::{Changes, Desk, Place, below};
use crate::mvcc::index::KeyRange;
use crate::node::Node;

/// Leaders that may wait for a slow observer.
const OUT: usize = 16;

/// The Election service.
pub struct ElectionService {
    /// The member.
    pub node: Arc<Node>,
}

fn missing_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

impl ElectionService {
    fn desk<T>(&self, r: &Request<T>) -> Desk {
        Desk { node: Arc::clone(&self.node), credentials: Credentials::of(r) }
    }
}

/// Puts a leader's value, unless it leads no more.
async fn proclaim(
    desk: &Desk,
    leader: LeaderKey,
    value: Bytes,
) -> Result<ProclaimResponse, Status> {
    let key = leader.key.clone();
    let put = PutRequest { key: leader.key, value, lease: leader.lease, ..Default::default() };
    let answer = desk.if_created(key, leader.rev, Op::RequestPut(put), None).await?;
    match answer.succeeded {
        true => Ok(ProclaimResponse { header: answer.header }),
        false => Err(not_leader()),
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(&self, r: Request<CampaignRequest>) -> Answer<CampaignResponse> {
        let desk = self.desk(&r);
        let r = r.into_inner();
        let (place, before) = Place::join(&desk, &r.name, r.lease, r.value.clone()).await?;
        let leader = |place: &Place| LeaderKey {
            name: r.name.clone(),
            key: place.key.clone(),
            rev: place.revision,
            lease: place.lease,
        };
        if before.is_some_and(|before| before != r.value) {
            proclaim(&desk, leader(&place), r.value.clone()).await?;
        }
        let place = place.turn().await?;
        let leader = Some(leader(&place));
        Ok(Response::new(CampaignResponse { header: self.node.header_now(), leader }))
    }

    async fn proclaim(&self, r: Request<ProclaimRequest>) -> Answer<ProclaimResponse> {
        let desk = self.desk(&r);
        let r = r.into_inner();
        let leader = r.leader.ok_or_else(missing_key)?;
        proclaim(&desk, leader, r.value).await.map(Response::new)
    }

    async fn leader(&self, r: Request<LeaderRequest>) -> Answer<LeaderResponse> {
        let (kv, revision) = self.desk(&r).first(&r.get_ref().name).await?;
        match kv {
            None => Err(Status::unknown("election: no leader")),
            kv => {
                Ok(Response::new(LeaderResponse { header: Some(self.node.header(revision)), kv }))
            }
        }
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(&self, r: Request<LeaderRequest>) -> Answer<Self::ObserveStream> {
        let (out, rx) = mpsc::channel(OUT);
        let desk = self.desk(&r);
        tokio::spawn(async move {
            if let Err(status) = observe(&desk, &r.get_ref().name, &out).await {
                // The client may be gone.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn resign(&self, r: Request<ResignRequest>) -> Answer<ResignResponse> {
        let desk = self.desk(&r);
        let leader = r.into_inner().leader.ok_or_else(missing_key)?;
        let header = desk.leave(leader.key, leader.rev).await?.header;
        Ok(Response::new(ResignResponse { header }))
    }
}

/// Sends each leader, and what it proclaims, until the client is gone. An observer that is slow
/// may miss leaders in between, never the last one.
async fn observe(
    desk: &Desk,
    name: &[u8],
    out: &mpsc::Sender<Result<LeaderResponse, Status>>,
) -> Result<(), Status> {
    let prefix = below(name);
    let keys = KeyRange::new(&prefix, &etcd_api::prefix_end(&prefix));
    let mut changes = Changes::of(&desk.node, keys);
    let mut told = None;
    loop {
        let (kv, revision) = desk.first(name).await?;
        let what = kv.as_ref().map(|kv| kv.mod_revision);
        if kv.is_some() && what != told {
            told = what;
            let header = Some(desk.node.header(revision));
            if out.send(Ok(LeaderResponse { header, kv })).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = changes.next() => {}
            () = out.closed() => return Ok(()),
        }
    }
}
