//! Locks.

use std::sync::Arc;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::DeleteRangeRequest;
use etcd_api::pb::etcdserverpb::kv_server::Kv;
use etcd_api::pb::v3lockpb::lock_server::Lock;
use etcd_api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response};

use super::Answer;
use super::caller::Credentials;
use super::kv::KvService;
use super::line::{Desk, Place};
use crate::node::Node;

/// The Lock service.
pub struct LockService {
    /// The member.
    pub node: Arc<Node>,
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, r: Request<LockRequest>) -> Answer<LockResponse> {
        let desk = Desk { node: Arc::clone(&self.node), credentials: Credentials::of(&r) };
        let r = r.into_inner();
        let (place, _) = Place::join(&desk, &r.name, r.lease, Bytes::new()).await?;
        let place = place.turn().await?;
        Ok(Response::new(LockResponse { header: self.node.header_now(), key: place.key.clone() }))
    }

    async fn unlock(&self, r: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        let kv = KvService { node: Arc::clone(&self.node) };
        let delete = |r: UnlockRequest| DeleteRangeRequest { key: r.key, ..Default::default() };
        let header = kv.delete_range(r.map(delete)).await?.into_inner().header;
        Ok(Response::new(UnlockResponse { header }))
    }
}
