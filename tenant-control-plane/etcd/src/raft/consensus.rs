//! The raft node: proposing, reading, membership, and answering the peers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::cluster_client::ClusterClient;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, InitializeError, LinearizableReadError, RaftError,
};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest};
use openraft::{ChangeMembers, Config, Raft, ReadPolicy, ServerState, SnapshotPolicy};
use tonic::Status;

use super::codec::{entry_from_pb, log_id_from_pb, log_id_to_pb, required_vote, vote_to_pb};
use super::log_store::LogStore;
use super::network::Peers;
use super::state_machine::{SnapshotData, StateMachine};
use super::types::{Command, PeerNode, RaftSnapshot, RaftSnapshotMeta, TypeConfig};
use crate::machine::Machine;
use crate::machine::load::Received;
use crate::pb;

/// How often it is looked whether raft has failed.
const LOOK: Duration = Duration::from_millis(500);
/// How long a membership change waits for the one before it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`.
    pub election: Duration,
    /// `--experimental-snapshot-catchup-entries`: log entries kept for slow followers.
    pub catchup_entries: u64,
}

/// Why something was not proposed. Nothing was appended, unless it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposeError {
    /// Ask this member, if it is known.
    NotLeader(Option<u64>),
    /// It may or may not be carried out.
    Unknown,
    /// This member is shutting down or broken.
    Stopped,
}

/// What the outside may know about raft.
#[derive(Debug, Clone, Default)]
pub struct RaftStatus {
    /// Current term.
    pub term: u64,
    /// The leader, if one is known.
    pub leader: Option<u64>,
    /// Whether that is this member.
    pub is_leader: bool,
    /// Whether this member has no vote.
    pub is_learner: bool,
    /// Index of the last committed entry.
    pub committed: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Why raft has stopped, if it has.
    pub failure: Option<String>,
}

/// The raft node of this member.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft<TypeConfig, StateMachine>,
    peers: Peers,
    machine: Arc<Machine>,
}

fn config(timing: Timing) -> anyhow::Result<Config> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "etcd".into(),
        heartbeat_interval: ms(timing.heartbeat),
        // A follower waits for the leader's lease to run out (which is as long as the maximum),
        // and then for a random time: together about one election timeout after the last
        // heartbeat, where etcd waits between one and two.
        election_timeout_min: ms(timing.election) * 35 / 100,
        election_timeout_max: ms(timing.election) * 55 / 100,
        install_snapshot_timeout: 3_600_000,
        max_payload_entries: 256,
        // A follower gets a snapshot only if the log no longer has what it needs.
        replication_lag_threshold: u64::MAX,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: timing.catchup_entries,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // A leader that resumes its old term after a restart knows neither what was committed
        // last (that reaches the disk lazily) nor has an entry of its own behind it: its read
        // index would lie before acknowledged writes. A new term begins with a new entry.
        enable_leader_restore: Some(false),
        api_channel_size: Some(1024),
        notification_channel_size: Some(4096),
        ..Config::default()
    };
    Ok(config.validate()?)
}

impl Consensus {
    /// Starts raft on what the machine has. Committed entries behind the checkpoint are applied
    /// before this returns.
    pub async fn start(
        machine: Arc<Machine>,
        peers: Peers,
        timing: Timing,
    ) -> anyhow::Result<Self> {
        let raft = Raft::new(
            peers.member_id,
            Arc::new(config(timing)?),
            peers.clone(),
            LogStore::new(Arc::clone(&machine)),
            StateMachine::new(Arc::clone(&machine)),
        )
        .await?;
        let started = Self { raft, peers, machine };
        started.elect_alone().await;
        Ok(started)
    }

    /// A member that is the only voter need not wait for anybody's heartbeat.
    async fn elect_alone(&self) {
        let voters: Vec<u64> = {
            let metrics = self.raft.metrics();
            let m = metrics.borrow_watched();
            m.membership_config.voter_ids().collect()
        };
        if voters == [self.peers.member_id] {
            // A failure means that raft has stopped, which the caller notices.
            let _ = self.raft.trigger().elect(false).await;
        }
    }

    /// Begins a new cluster with these members. Every one of them does this with the same list.
    pub async fn bootstrap(&self, members: BTreeMap<u64, Vec<String>>) -> anyhow::Result<()> {
        let nodes: BTreeMap<u64, PeerNode> =
            members.into_iter().map(|(id, peer_urls)| (id, PeerNode { peer_urls })).collect();
        match self.raft.initialize(nodes).await {
            // Another member was faster and has already written to our log.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// What is known now.
    pub fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        RaftStatus {
            term: m.current_term,
            leader: m.current_leader,
            is_leader: m.state == ServerState::Leader,
            is_learner: m.state == ServerState::Learner
                && m.membership_config.voter_ids().next().is_some(),
            committed: m.local_committed.as_ref().map_or(0, |id| id.index),
            applied: m.last_applied.as_ref().map_or(0, |id| id.index),
            failure: m.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Waits until a leader is known that is not `but`, and returns it.
    pub async fn wait_leader(&self, but: Option<u64>) -> Option<u64> {
        let mut rx = self.raft.metrics();
        loop {
            {
                let m = rx.borrow_watched();
                if m.current_leader.is_some() && m.current_leader != but {
                    return m.current_leader;
                }
            }
            rx.changed().await.ok()?;
        }
    }

    /// Waits until raft stops, and says why.
    pub async fn wait_failure(&self) -> String {
        loop {
            if let Some(failure) = self.status().failure {
                return failure;
            }
            // Raft tells many times a second that it is well.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A leader without anybody to lead needs no clock: no heartbeats, no elections.
    pub fn rest_when_alone(&self) {
        let is_alone = {
            let metrics = self.raft.metrics();
            let m = metrics.borrow_watched();
            let own = self.peers.member_id;
            let members = m.membership_config.membership().nodes().map(|(id, _)| *id);
            m.state == ServerState::Leader && members.eq([own])
        };
        self.raft.runtime_config().tick(!is_alone);
    }

    /// Proposes an encoded batch. Returns when it has been applied here.
    pub async fn propose(&self, batch: Bytes) -> Result<(), ProposeError> {
        match self.raft.client_write(Command::new(batch)).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(f))) => {
                Err(ProposeError::NotLeader(f.leader_id.filter(|id| *id != self.peers.member_id)))
            }
            Err(RaftError::APIError(_)) => Err(ProposeError::Unknown),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// On the leader: the index from which on a read that starts now is linearizable.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(f))) => {
                Err(ProposeError::NotLeader(f.leader_id.filter(|id| *id != self.peers.member_id)))
            }
            Err(RaftError::APIError(_)) => Err(ProposeError::Unknown),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Stopped),
        }
    }

    /// A client of another member.
    pub fn peer(
        &self,
        id: u64,
    ) -> Result<pb::peer_client::PeerClient<tonic::transport::Channel>, Status> {
        self.peers.client(id, &self.node(id)?)
    }

    /// A client of another member's Cluster service, which it serves on its peer URL too.
    pub fn cluster_client(
        &self,
        id: u64,
    ) -> Result<ClusterClient<tonic::transport::Channel>, Status> {
        self.peers.channel(id, &self.node(id)?).map(ClusterClient::new)
    }

    fn node(&self, id: u64) -> Result<PeerNode, Status> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let node = m.membership_config.membership().get_node(&id).cloned();
        node.ok_or_else(|| EtcdError::MemberNotFound.into())
    }

    /// On the leader: whether a member has nearly all of the log (nine tenths, as in etcd).
    pub fn is_caught_up(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let matched = m.replication.as_ref().and_then(|r| r.get(&id).cloned());
        let have = matched.flatten().map_or(0, |log_id| log_id.index);
        let last = m.last_log_index.unwrap_or(0);
        have >= last - last / 10
    }

    /// Members with their peer URLs, and whether each is a learner.
    pub fn members(&self) -> Vec<(u64, Vec<String>, bool)> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let voters: Vec<u64> = m.membership_config.voter_ids().collect();
        m.membership_config
            .membership()
            .nodes()
            .map(|(id, node)| (*id, node.peer_urls.clone(), !voters.contains(id)))
            .collect()
    }

    /// Ids of this member and its cluster.
    pub fn ids(&self) -> (u64, u64) {
        (self.peers.member_id, self.peers.cluster_id)
    }

    /// Adds a member without a vote.
    pub async fn add_learner(&self, id: u64, peer_urls: Vec<String>) -> Result<(), Status> {
        self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, PeerNode { peer_urls })]))).await
    }

    /// Gives a learner a vote.
    pub async fn promote(&self, id: u64) -> Result<(), Status> {
        self.change(ChangeMembers::AddVoterIds([id].into())).await
    }

    /// Changes a member's peer URLs.
    pub async fn update(&self, id: u64, peer_urls: Vec<String>) -> Result<(), Status> {
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, PeerNode { peer_urls })]))).await
    }

    /// Removes a member.
    pub async fn remove(&self, id: u64) -> Result<(), Status> {
        let is_learner =
            self.members().iter().any(|(member, _, learner)| *member == id && *learner);
        self.change(if is_learner {
            ChangeMembers::RemoveNodes([id].into())
        } else {
            ChangeMembers::RemoveVoters([id].into())
        })
        .await
    }

    async fn change(&self, change: ChangeMembers<u64, PeerNode>) -> Result<(), Status> {
        let deadline = tokio::time::Instant::now() + CHANGE_TIMEOUT;
        loop {
            let e = match self.raft.change_membership(change.clone(), false).await {
                Ok(_) => return Ok(()),
                Err(RaftError::Fatal(_)) => return Err(EtcdError::Stopped.into()),
                Err(RaftError::APIError(e)) => e,
            };
            let busy = matches!(
                e,
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_)
                        | ChangeMembershipError::UncommittedLeaderLog(_)
                )
            );
            if busy && tokio::time::Instant::now() < deadline {
                // The last change, or this leader's first entry, is about to be committed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            return Err(match e {
                ClientWriteError::ForwardToLeader(_) => EtcdError::NotLeader.into(),
                e => Status::failed_precondition(format!("etcdserver: {e}")),
            });
        }
    }

    /// Hands leadership to `to`; the caller watches for it.
    pub async fn transfer(&self, to: u64) -> Result<(), Status> {
        self.raft.trigger().transfer_leader(to).await.map_err(|_| EtcdError::Stopped.into())
    }

    /// Asks for a checkpoint, after which the log is purged.
    pub async fn request_checkpoint(&self) {
        // A failure means that raft has stopped, which others notice.
        let _ = self.raft.trigger().snapshot().await;
    }

    /// Stops raft.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "raft did not stop cleanly");
        }
    }

    fn check_cluster(&self, cluster_id: u64) -> Result<(), Status> {
        if cluster_id == self.peers.cluster_id {
            return Ok(());
        }
        Err(Status::failed_precondition("etcdserver: cluster ID mismatch"))
    }

    /// A peer's append.
    pub async fn on_append(&self, r: pb::AppendRequest) -> Result<pb::AppendResponse, Status> {
        use pb::append_response::Kind;
        self.check_cluster(r.cluster_id)?;
        let entries = r.entries.into_iter().map(entry_from_pb);
        let request = AppendEntriesRequest {
            vote: required_vote(r.vote)?,
            prev_log_id: r.previous.map(log_id_from_pb),
            entries: entries.collect::<Result<_, _>>()?,
            leader_commit: r.committed.map(log_id_from_pb),
        };
        let answer = self.raft.append_entries(request).await.map_err(stopped)?;
        let mut out = pb::AppendResponse::default();
        let kind = match answer {
            AppendEntriesResponse::Success => Kind::Success,
            AppendEntriesResponse::PartialSuccess(id) => {
                out.matched = id.as_ref().map(log_id_to_pb);
                Kind::Partial
            }
            AppendEntriesResponse::Conflict => Kind::Conflict,
            AppendEntriesResponse::HigherVote(vote) => {
                out.vote = Some(vote_to_pb(&vote));
                Kind::HigherVote
            }
        };
        out.set_kind(kind);
        Ok(out)
    }

    /// A peer's vote request, or its question whether it would get the vote.
    pub async fn on_vote(
        &self,
        r: pb::VoteRequest,
        pre_vote: bool,
    ) -> Result<pb::VoteResponse, Status> {
        self.check_cluster(r.cluster_id)?;
        let request = openraft::raft::VoteRequest {
            vote: required_vote(r.vote)?,
            last_log_id: r.last.map(log_id_from_pb),
            leadership_transfer: r.leadership_transfer,
        };
        let answer = if pre_vote {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        };
        let answer = answer.map_err(stopped)?;
        Ok(pb::VoteResponse {
            vote: Some(vote_to_pb(&answer.vote)),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(log_id_to_pb),
        })
    }

    /// The leader wants this member to take over.
    pub async fn on_transfer(
        &self,
        r: pb::TransferRequest,
    ) -> Result<pb::TransferResponse, Status> {
        let request =
            TransferLeaderRequest::new(required_vote(r.from)?, r.to, r.last.map(log_id_from_pb));
        let answer = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(pb::TransferResponse { error: answer.err().map(|e| e.to_string()).unwrap_or_default() })
    }

    /// A snapshot that has been received completely.
    pub async fn on_snapshot(
        &self,
        head: pb::SnapshotHead,
        received: Received,
    ) -> Result<pb::SnapshotAck, Status> {
        let state = head.state.unwrap_or_default();
        let membership = serde_json::from_slice(&state.membership)
            .map_err(|e| Status::invalid_argument(format!("membership: {e}")))?;
        let snapshot = RaftSnapshot {
            meta: RaftSnapshotMeta {
                last_log_id: state.applied.map(log_id_from_pb),
                last_membership: membership,
            },
            snapshot: SnapshotData::Theirs(Box::new(received)),
        };
        let vote = required_vote(head.vote)?;
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(pb::SnapshotAck { vote: Some(vote_to_pb(&answer.vote)) })
    }

    /// Begins to receive a snapshot.
    pub fn machine_for(&self, head: &pb::SnapshotHead) -> Result<&Arc<Machine>, Status> {
        self.check_cluster(head.cluster_id)?;
        Ok(&self.machine)
    }
}

fn stopped(e: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("etcdserver: server stopped: {e}"))
}
