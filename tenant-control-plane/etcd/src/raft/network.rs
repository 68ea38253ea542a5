//! Talking to the other members.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_api::client::{Client, ConnectError, connect};
use etcd_api::pb::etcdserverpb::AlarmType;
use etcd_api::tls::ClientTls;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::codec::{
    CodecError, entry_to_pb, log_id_from_pb, log_id_to_pb, required_vote, vote_to_pb,
};
use super::state_machine::SnapshotData;
use super::types::{PeerNode, RaftSnapshot, TypeConfig, Vote};
use crate::machine::load::KEYS_PER_BLOCK;
use crate::machine::view::View;
use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::threads;

const MAX_MESSAGE: usize = i32::MAX as usize;
/// Keys that are on their way to a follower, in blocks.
const BLOCKS_IN_FLIGHT: usize = 4;

/// Makes a client of a member.
pub type Dial = Arc<dyn Fn(&PeerNode) -> Result<Client, ConnectError> + Send + Sync>;

/// Over the network.
pub fn dial(tls: Option<ClientTls>) -> Dial {
    Arc::new(move |node| connect(&node.peer_urls, tls.as_ref()))
}

/// Connections to the other members, shared by replication, forwarding and read-index.
#[derive(Clone)]
pub struct Peers {
    dial: Dial,
    /// This member.
    pub member_id: u64,
    /// This cluster; a member of another one is refused.
    pub cluster_id: u64,
    open: Arc<Mutex<HashMap<u64, (PeerNode, Client)>>>,
}

impl Peers {
    /// Connections are made when they are first used.
    pub fn new(member_id: u64, cluster_id: u64, dial: Dial) -> Self {
        Self { dial, member_id, cluster_id, open: Arc::default() }
    }

    /// A client of a member. All of them share its connection.
    pub fn client(&self, id: u64, node: &PeerNode) -> Result<PeerClient<Channel>, Status> {
        Ok(PeerClient::new(self.channel(id, node)?)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }

    /// The connection to a member.
    pub fn channel(&self, id: u64, node: &PeerNode) -> Result<Channel, Status> {
        let mut open = self.open.lock().expect("no panic while held");
        let client = match open.get(&id) {
            Some((n, client)) if n == node => client.clone(),
            _ => {
                let client = (self.dial)(node)
                    .map_err(|e| Status::internal(format!("member {id:x}: {e}")))?;
                open.insert(id, (node.clone(), client.clone()));
                client
            }
        };
        Ok(client.channel())
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        Peer {
            client: self.client(target, node),
            target,
            id: self.member_id,
            cluster_id: self.cluster_id,
        }
    }
}

/// One member, as seen from here.
pub struct Peer {
    client: Result<PeerClient<Channel>, Status>,
    target: u64,
    id: u64,
    cluster_id: u64,
}

impl Peer {
    fn client(&self) -> Result<PeerClient<Channel>, RPCError<TypeConfig>> {
        self.client.clone().map_err(rpc_error)
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.id, target: self.target, timeout }
    }

    async fn call<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(rpc_error(status)),
            Err(_) => Err(self.timed_out(action, option.hard_ttl()).into()),
        }
    }

    fn vote_request(&self, rpc: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
        pb::VoteRequest {
            vote: Some(vote_to_pb(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(log_id_to_pb),
            leadership_transfer: rpc.leadership_transfer,
            cluster_id: self.cluster_id,
        }
    }
}

fn rpc_error(status: Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::Internal | Code::FailedPrecondition => {
            RPCError::Unreachable(Unreachable::from_string(status))
        }
        _ => RPCError::Network(NetworkError::from_string(status)),
    }
}

fn bad_answer(e: CodecError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&e))
}

fn vote_response(r: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
    Ok(VoteResponse {
        vote: required_vote(r.vote).map_err(bad_answer)?,
        vote_granted: r.granted,
        last_log_id: r.last.map(log_id_from_pb),
    })
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = pb::AppendRequest {
            vote: Some(vote_to_pb(&rpc.vote)),
            previous: rpc.prev_log_id.as_ref().map(log_id_to_pb),
            entries: rpc.entries.into_iter().map(entry_to_pb).collect(),
            committed: rpc.leader_commit.as_ref().map(log_id_to_pb),
            cluster_id: self.cluster_id,
        };
        let mut client = self.client()?;
        let call = client.append(request);
        let r = self.call(RPCTypes::AppendEntries, &option, call).await?;
        use pb::append_response::Kind;
        Ok(match r.kind() {
            Kind::Success => AppendEntriesResponse::Success,
            Kind::Partial => AppendEntriesResponse::PartialSuccess(r.matched.map(log_id_from_pb)),
            Kind::Conflict => AppendEntriesResponse::Conflict,
            Kind::HigherVote => {
                AppendEntriesResponse::HigherVote(required_vote(r.vote).map_err(bad_answer)?)
            }
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let call = client.vote(self.vote_request(&rpc));
        vote_response(self.call(RPCTypes::Vote, &option, call).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let call = client.pre_vote(self.vote_request(&rpc));
        vote_response(self.call(RPCTypes::Vote, &option, call).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |s: Status| StreamingError::Unreachable(Unreachable::from_string(s));
        let SnapshotData::Ours(view) = snapshot.snapshot else {
            let e = io::Error::other("a received snapshot cannot be sent on");
            return Err(StreamingError::Network(NetworkError::new(&e)));
        };
        let corrupt = i32::from(AlarmType::Corrupt);
        if view.head.alarms.iter().any(|a| a.member_id == self.id && a.alarm == corrupt) {
            let e = io::Error::other("this member's state is damaged and is not passed on");
            return Err(StreamingError::Network(NetworkError::new(&e)));
        }
        tracing::debug!(
            peer.id = format_args!("{:x}", self.target),
            revision = view.head.revision,
            "sending a snapshot"
        );
        let (tx, rx) = tokio::sync::mpsc::channel(BLOCKS_IN_FLIGHT);
        let head = pb::SnapshotHead {
            vote: Some(vote_to_pb(&vote)),
            cluster_id: self.cluster_id,
            state: Some(view.head.clone()),
        };
        tokio::spawn(stream_view(*view, head, tx));
        let mut client = self.client.clone().map_err(unreachable)?;
        let chunks = tokio_stream::wrappers::ReceiverStream::new(rx);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = client.install_snapshot(chunks) => {
                let ack = answer.map_err(unreachable)?.into_inner();
                let vote = required_vote(ack.vote)
                    .map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = pb::TransferRequest {
            from: Some(vote_to_pb(rpc.from_leader())),
            to: *rpc.to_node_id(),
            last: rpc.last_log_id().map(log_id_to_pb),
        };
        let mut client = self.client()?;
        let call = client.transfer_leader(request);
        let r = self.call(RPCTypes::TransferLeader, &option, call).await?;
        if r.error.is_empty() {
            return Ok(Ok(()));
        }
        Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: rpc.last_log_id().cloned(),
            actual: None,
        }))
    }

    fn backoff(&self) -> Option<Backoff> {
        let delays = [20, 50, 100, 200].map(Duration::from_millis).into_iter();
        Some(Backoff::new(delays.chain(std::iter::repeat(Duration::from_millis(500)))))
    }
}

/// Sends a view, as fast as the receiver takes it. Ends early when the receiver is gone.
async fn stream_view(
    mut view: View,
    head: pb::SnapshotHead,
    out: tokio::sync::mpsc::Sender<pb::SnapshotChunk>,
) {
    use pb::snapshot_chunk::Part;
    let send = async |part| out.send(pb::SnapshotChunk { part: Some(part) }).await.is_ok();
    if !send(Part::Head(head)).await {
        return;
    }
    let mut sent = 0;
    loop {
        let next = threads::block(move || {
            let keys = view.next(KEYS_PER_BLOCK / 8).and_then(|keys| view.with_values(keys));
            (view, keys)
        });
        let keys = match next.await {
            Ok((same, Ok(keys))) => {
                view = same;
                keys
            }
            Ok((_, Err(e))) | Err(e) => {
                // Without the end the receiver discards what it has.
                tracing::error!(error = %e, "a snapshot cannot be read");
                return;
            }
        };
        if keys.is_empty() {
            send(Part::End(pb::SnapshotEnd { keys: sent })).await;
            return;
        }
        sent += keys.len() as u64;
        if !send(Part::Items(pb::SnapshotItems { keys })).await {
            return;
        }
    }
}
