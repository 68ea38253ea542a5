//! Status, snapshots, hashes, alarms.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::pb::etcdserverpb::maintenance_server::Maintenance;
use etcd_api::pb::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest,
    StatusResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Answer;
use super::caller::{administrator, somebody};
use crate::backup::export;
use crate::machine::view::View;
use crate::machine::waiters::Outcome;
use crate::node::Node;
use crate::pb::proposal::Op;

/// Keys that are hashed under one lock.
const KEYS_PER_LOCK: usize = 256;

/// The Maintenance service.
pub struct MaintenanceService {
    /// The member.
    pub node: Arc<Node>,
}

impl MaintenanceService {
    /// Hash of all versions up to `revision` (0: now) that no compaction has made unreachable.
    async fn hash(&self, revision: i64) -> Result<(u32, i64, i64), Status> {
        let machine = Arc::clone(&self.node.machine);
        machine.read().store.check_revision(revision)?;
        let hashed = tokio::task::spawn_blocking(move || {
            let mut view = View::open(&machine);
            let compacted = view.head.compacted;
            let revision = if revision > 0 { revision } else { view.head.revision };
            let mut h = crc32fast::Hasher::new();
            loop {
                let keys = view.next(KEYS_PER_LOCK)?;
                if keys.is_empty() {
                    return Ok((h.finalize(), compacted, revision));
                }
                for (key, versions) in keys {
                    // Not what a sweep may or may not have dropped yet.
                    let from = versions.partition_point(|v| v.main <= compacted).saturating_sub(1);
                    for v in versions[from..].iter().filter(|v| v.main <= revision) {
                        if v.is_tombstone() && v.main < compacted {
                            continue;
                        }
                        h.update(&key);
                        h.update(&v.main.to_le_bytes());
                        h.update(&v.sub.to_le_bytes());
                        h.update(&v.create.to_le_bytes());
                        h.update(&v.version.to_le_bytes());
                        h.update(&v.lease.to_le_bytes());
                        h.update(&v.value.len.to_le_bytes());
                        h.update(&v.value.crc.to_le_bytes());
                    }
                }
            }
        });
        let hashed: io::Result<_> = hashed.await.map_err(|e| Status::internal(e.to_string()))?;
        hashed.map_err(|e| Status::unavailable(format!("etcdserver: {e}")))
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, r: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        let caller = match r.get_ref().action() {
            AlarmAction::Get => somebody(&self.node, &r).await?,
            _ => administrator(&self.node, &r).await?,
        };
        match self.node.propose_as(Op::Alarm(r.into_inner()), caller).await? {
            Outcome::Alarms(alarms) => {
                Ok(Response::new(AlarmResponse { header: self.node.header_now(), alarms }))
            }
            other => Err(Status::internal(format!("unexpected outcome {other:?}"))),
        }
    }

    async fn status(&self, r: Request<StatusRequest>) -> Answer<StatusResponse> {
        somebody(&self.node, &r).await?;
        let status = self.node.consensus.status();
        let (disk, _) = self.node.machine.log.usage();
        let (in_use, errors) = {
            let state = self.node.machine.read();
            let mut errors: Vec<String> = state
                .alarms
                .iter()
                .map(|(member, kind)| {
                    let kind = AlarmType::try_from(*kind).unwrap_or_default();
                    format!("memberID:{member} alarm:{} ", kind.as_str_name())
                })
                .collect();
            if status.leader.is_none() {
                errors.push(EtcdError::NoLeader.text().to_owned());
            }
            (state.store.live.values().sum::<u64>(), errors)
        };
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: self.node.header_now(),
            version: crate::VERSION.into(),
            db_size: bytes(disk),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            db_size_in_use: bytes(in_use),
            is_learner: status.is_learner,
            storage_version: crate::STORAGE_VERSION.into(),
            db_size_quota: bytes(self.node.config.quota),
            downgrade_info: None,
        }))
    }

    async fn defragment(&self, r: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        administrator(&self.node, &r).await?;
        crate::background::defragment(&self.node)
            .await
            .map_err(|e| Status::internal(format!("etcdserver: {e}")))?;
        Ok(Response::new(DefragmentResponse { header: self.node.header_now() }))
    }

    async fn hash(&self, r: Request<HashRequest>) -> Answer<HashResponse> {
        administrator(&self.node, &r).await?;
        let (hash, ..) = self.hash(0).await?;
        Ok(Response::new(HashResponse { header: self.node.header_now(), hash }))
    }

    async fn hash_kv(&self, r: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        administrator(&self.node, &r).await?;
        let (hash, compact_revision, hash_revision) = self.hash(r.get_ref().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: self.node.header_now(),
            hash,
            compact_revision,
            hash_revision,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, r: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        administrator(&self.node, &r).await?;
        self.node.must_be_sound()?;
        let (tx, rx) = tokio::sync::mpsc::channel(4);
        let node = Arc::clone(&self.node);
        let view = View::open(&node.machine);
        let header = node.header(view.head.revision);
        tokio::task::spawn_blocking(move || {
            let result = export::write(view, |blob: Bytes, remaining_bytes| {
                let piece = SnapshotResponse {
                    header: Some(header),
                    remaining_bytes,
                    blob,
                    version: crate::STORAGE_VERSION.into(),
                };
                tx.blocking_send(Ok(piece)).is_ok()
            });
            if let Err(e) = result {
                // The client may be gone.
                let _ = tx.blocking_send(Err(Status::internal(e.to_string())));
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn move_leader(&self, r: Request<MoveLeaderRequest>) -> Answer<MoveLeaderResponse> {
        administrator(&self.node, &r).await?;
        let target = r.get_ref().target_id;
        let status = self.node.consensus.status();
        if !status.is_leader {
            return Err(EtcdError::NotLeader.into());
        }
        let members = self.node.consensus.members();
        if !members.iter().any(|(id, _, learner)| *id == target && !learner) {
            return Err(EtcdError::BadLeaderTransferee.into());
        }
        if status.leader != Some(target) {
            self.node.consensus.transfer(target).await?;
            let own = status.leader;
            let moved = self.node.consensus.wait_leader(own);
            tokio::time::timeout(self.node.request_timeout(), moved)
                .await
                .map_err(|_| EtcdError::Timeout)?;
        }
        Ok(Response::new(MoveLeaderResponse { header: self.node.header_now() }))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Answer<DowngradeResponse> {
        Err(Status::unimplemented(
            "etcdserver: downgrade is not implemented: there is one storage version",
        ))
    }
}
