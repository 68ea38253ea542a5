//! Getting requests into the log, and reads in order: both many at a time.
//!
//! While some batches are on their way, whatever arrives waits and becomes the next batch: under
//! load one log entry, one sync and one round trip serve many requests, and alone a request waits
//! for nobody.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::error::EtcdError;
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;

use crate::node::Node;
use crate::pb;
use crate::raft::consensus::ProposeError;

/// Batches on their way at once.
const IN_FLIGHT: usize = 4;
const BATCH_REQUESTS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// Pause before asking again when nobody is known to lead.
const RETRY: Duration = Duration::from_millis(20);

/// Proposes what comes through the queue until the node is dropped.
pub async fn propose_loop(node: Weak<Node>, mut queue: mpsc::Receiver<pb::Proposal>) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = queue.recv().await {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let Some(node) = node.upgrade() else { return };
        let mut bytes = first.encoded_len();
        let mut proposals = vec![first];
        while proposals.len() < BATCH_REQUESTS
            && bytes < BATCH_BYTES
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.encoded_len();
            proposals.push(next);
        }
        // Whoever has given up was told that it failed, and may have tried again elsewhere.
        proposals.retain(|proposal| node.machine.waiters.is_waiting(proposal.id));
        if proposals.is_empty() {
            continue;
        }
        tokio::spawn(async move {
            let _permit = permit;
            let ids: Vec<u64> = proposals.iter().map(|p| p.id).collect();
            let batch = Bytes::from(pb::Batch { proposals }.encode_to_vec());
            node.metrics.proposed(ids.len());
            if let Err(e) = send(&node, batch).await {
                node.metrics.proposals_failed(ids.len());
                for id in ids {
                    node.machine.waiters.finish(id, Err(e));
                }
            }
        });
    }
}

/// Gets a batch to the leader, whoever that is. On success it is committed.
async fn send(node: &Node, batch: Bytes) -> Result<(), EtcdError> {
    let deadline = Instant::now() + node.request_timeout();
    while Instant::now() < deadline {
        match node.consensus.propose(batch.clone()).await {
            Ok(()) => return Ok(()),
            Err(ProposeError::NotLeader(Some(leader))) => {
                match forward(node, leader, batch.clone()).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(status) if never_sent(&status) => {}
                    Err(_) => return Err(EtcdError::TimeoutLeaderFail),
                }
            }
            Err(ProposeError::NotLeader(None)) => {}
            Err(ProposeError::Unknown) => return Err(EtcdError::TimeoutLeaderFail),
            Err(ProposeError::Stopped) => return Err(EtcdError::Stopped),
        }
        tokio::time::sleep(RETRY).await;
    }
    Err(EtcdError::Timeout)
}

async fn forward(node: &Node, leader: u64, batch: Bytes) -> Result<bool, Status> {
    let mut peer = node.consensus.peer(leader)?;
    let answer = peer.forward(pb::ForwardRequest { batch });
    match tokio::time::timeout(node.request_timeout(), answer).await {
        Ok(answer) => Ok(answer?.into_inner().accepted),
        Err(_) => Err(EtcdError::Timeout.into()),
    }
}

/// Whether a call failed before anything left this process: then trying again is safe.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(e) = source {
        if e.is::<tonic::ConnectError>() {
            return true;
        }
        source = e.source();
    }
    false
}

/// Answers reads that want to be linearizable until the node is dropped. All that wait when a
/// round begins are answered by that round.
pub async fn read_loop(
    node: Weak<Node>,
    mut queue: mpsc::Receiver<oneshot::Sender<Result<(), EtcdError>>>,
) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, usize::MAX).await > 0 {
        let Some(node) = node.upgrade() else { return };
        let answer = one_round(&node).await;
        for reader in waiting.drain(..) {
            // The reader may have given up.
            let _ = reader.send(answer);
        }
    }
}

async fn one_round(node: &Node) -> Result<(), EtcdError> {
    let deadline = Instant::now() + node.request_timeout();
    loop {
        match tokio::time::timeout_at(deadline, read_index(node)).await {
            Ok(Ok(index)) => {
                let applied = node.machine.wait_applied(index);
                return tokio::time::timeout_at(deadline, applied)
                    .await
                    .map_err(|_| EtcdError::TimeoutWaitApplied);
            }
            Ok(Err(ProposeError::Stopped)) => return Err(EtcdError::Stopped),
            Ok(Err(_)) => tokio::time::sleep(RETRY).await,
            Err(_) => return Err(EtcdError::Timeout),
        }
        if Instant::now() >= deadline {
            return Err(EtcdError::Timeout);
        }
    }
}

async fn read_index(node: &Node) -> Result<u64, ProposeError> {
    let leader = match node.consensus.read_index().await {
        Err(ProposeError::NotLeader(Some(leader))) => leader,
        other => return other,
    };
    let mut peer = node.consensus.peer(leader).map_err(|_| ProposeError::NotLeader(None))?;
    match peer.read_index(pb::ReadIndexRequest {}).await {
        Ok(r) if r.get_ref().ready => Ok(r.get_ref().index),
        _ => Err(ProposeError::NotLeader(None)),
    }
}
