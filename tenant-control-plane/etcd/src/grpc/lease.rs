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
use super::caller::{Credentials, caller};
use crate::access::check::Check;
use crate::access::grants::Access;
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

/// A lease must outlive an election: one and a half election timeouts, in whole seconds.
fn min_ttl(node: &Node) -> i64 {
    let ms = node.config.timing.election.as_millis() as i64;
    (ms * 3 / 2 + 999) / 1000
}

/// Grants a lease; id 0 lets the server choose. Gives id and time to live.
pub async fn grant(
    node: &Node,
    wanted: i64,
    ttl: i64,
    caller: Option<pb::Caller>,
) -> Result<(i64, i64), Status> {
    if ttl > MAX_TTL {
        return Err(EtcdError::LeaseTtlTooLarge.into());
    }
    let ttl = ttl.max(min_ttl(node));
    let mut id = wanted;
    loop {
        if id == 0 {
            id = rand::random::<i64>() & i64::MAX;
            continue;
        }
        let lease = pb::LeaseGrant { id, ttl, ..Default::default() };
        match node.propose_as(Op::LeaseGrant(lease), caller.clone()).await {
            Err(s) if wanted == 0 && EtcdError::of(&s) == Some(EtcdError::LeaseExists) => id = 0,
            Err(s) => return Err(s),
            Ok(_) => return Ok((id, ttl)),
        }
    }
}

/// Refuses who may not write every key of a lease.
async fn may_renew(node: &Node, credentials: &Credentials, id: i64) -> Result<(), Status> {
    node.must_be_sound()?;
    if !node.machine.is_guarded() {
        return Ok(());
    }
    let caller = credentials.caller(node).await?;
    let state = node.machine.read();
    state.access.must_be_named(caller.as_ref())?;
    let check = Check { access: &state.access, store: &state.store, caller: caller.as_ref() };
    Ok(check.lease(id, Access::Write)?)
}

impl LeaseService {
    /// Refuses who may not read every key of these leases.
    fn may_see(&self, ids: &[i64], caller: Option<&pb::Caller>) -> Result<(), EtcdError> {
        let state = self.node.machine.read();
        if !state.access.enabled {
            return Ok(());
        }
        state.access.must_be_named(caller)?;
        let check = Check { access: &state.access, store: &state.store, caller };
        ids.iter().try_for_each(|id| check.lease(*id, Access::Read))
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(&self, r: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        let caller = caller(&self.node, &r).await?;
        let (id, ttl) = grant(&self.node, r.get_ref().id, r.get_ref().ttl, caller).await?;
        Ok(Response::new(LeaseGrantResponse {
            header: self.node.header_now(),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(&self, r: Request<LeaseRevokeRequest>) -> Answer<LeaseRevokeResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.propose_as(Op::LeaseRevoke(r.get_ref().id), caller).await?;
        Ok(Response::new(LeaseRevokeResponse { header: self.node.header_now() }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        r: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let credentials = Credentials::of(&r);
        let mut requests = r.into_inner();
        let (tx, rx) = tokio::sync::mpsc::channel(16);
        let node = Arc::clone(&self.node);
        tokio::spawn(async move {
            while let Ok(Some(r)) = requests.message().await {
                // Before the renewal: the revision must not be one at which the lease was gone.
                let header = node.header_now();
                let answer = match may_renew(&node, &credentials, r.id).await {
                    Ok(()) => node.lease_at_leader(r.id, true).await,
                    Err(status) => Err(status),
                };
                let failed = answer.is_err();
                let response = answer.map(|renewed| LeaseKeepAliveResponse {
                    header,
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
        let caller = caller(&self.node, &r).await?;
        let r = r.into_inner();
        if r.keys {
            self.may_see(&[r.id], caller.as_ref())?;
        }
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
            if r.keys {
                self.node.machine.read().access.is_still(caller.as_ref())?;
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, r: Request<LeaseLeasesRequest>) -> Answer<LeaseLeasesResponse> {
        let caller = caller(&self.node, &r).await?;
        self.node.linearize().await?;
        let ids: Vec<i64> = self.node.machine.read().store.leases.keys().copied().collect();
        self.may_see(&ids, caller.as_ref())?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.node.header_now(), leases }))
    }
}
