//! Leases.

use std::sync::Arc;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::lease_server::Lease;
use etcd_api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Answer;
use crate::node::Node;
use crate::pb;
use crate::pb::proposal::Op;

/// etcd's bound; seconds.
const MAX_TTL: i64 = 9_000_000_000;

/// The Lease service.
pub struct LeaseService {
    /// The member.
    pub node: Arc<Node>,
}

impl LeaseService {
    /// A lease must outlive an election: one and a half election timeouts, in whole seconds.
    fn min_ttl(&self) -> i64 {
        let ms = self.node.config.timing.election.as_millis() as i64;
        (ms * 3 / 2 + 999) / 1000
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(&self, r: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        let r = r.into_inner();
        if r.ttl > MAX_TTL {
            return Err(EtcdError::LeaseTtlTooLarge.into());
        }
        let ttl = r.ttl.max(self.min_ttl());
        let mut id = r.id;
        loop {
            if id == 0 {
                id = rand::random::<i64>() & i64::MAX;
                continue;
            }
            match self.node.propose(Op::LeaseGrant(pb::LeaseGrant { id, ttl })).await {
                Err(s) if r.id == 0 && EtcdError::of(&s) == Some(EtcdError::LeaseExists) => id = 0,
                Err(s) => return Err(s),
                Ok(_) => break,
            }
        }
        Ok(Response::new(LeaseGrantResponse {
            header: self.node.header_now(),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(&self, r: Request<LeaseRevokeRequest>) -> Answer<LeaseRevokeResponse> {
        self.node.propose(Op::LeaseRevoke(r.get_ref().id)).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.node.header_now() }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        r: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let mut requests = r.into_inner();
        let (tx, rx) = tokio::sync::mpsc::channel(16);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move {
            while let Ok(Some(r)) = requests.message().await {
                let answer = node.lease_at_leader(r.id, true).await;
                let failed = answer.is_err();
                let response = answer.map(|renewed| LeaseKeepAliveResponse {
                    header: node.header_now(),
                    id: r.id,
                    // A lease that does not exist has no time left.
                    ttl: renewed.map_or(0, |l| l.ttl),
                });
                if tx.send(response).await.is_err() || failed {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn lease_time_to_live(
        &self,
        r: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        let r = r.into_inner();
        let time = self.node.lease_at_leader(r.id, false).await?;
        let mut response = LeaseTimeToLiveResponse {
            header: self.node.header_now(),
            id: r.id,
            ttl: -1,
            ..Default::default()
        };
        if let Some(time) = time {
            response.ttl = time.ttl;
            response.granted_ttl = time.granted_ttl;
            if r.keys
                && let Some(lease) = self.node.machine.read().store.leases.get(&r.id)
            {
                response.keys = lease.keys.iter().map(|k| k.to_vec().into()).collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        self.node.linearize().await?;
        let leases = self
            .node
            .machine
            .read()
            .store
            .leases
            .keys()
            .map(|id| LeaseStatus { id: *id })
            .collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.node.header_now(), leases }))
    }
}
