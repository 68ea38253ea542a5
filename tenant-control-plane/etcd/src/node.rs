//! One member: what gRPC handlers and the other members call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{AlarmType, ResponseHeader};
use prost::Message;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::config::Config;
use crate::lease::Deadlines;
use crate::machine::Machine;
use crate::machine::waiters::Outcome;
use crate::metrics::Metrics;
use crate::pb;
use crate::pb::lease_time_response::Kind;
use crate::pb::proposal::Op;
use crate::propose;
use crate::raft::Consensus;

/// Requests that wait to be proposed, before callers have to wait to get in line.
const QUEUE: usize = 4096;

/// One member.
pub struct Node {
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its state.
    pub machine: Arc<Machine>,
    /// Its raft node.
    pub consensus: Consensus,
    /// Its counters.
    pub metrics: Metrics,
    /// When leases end; meaningful on the leader.
    pub deadlines: Mutex<Deadlines>,
    /// Whether there has been no leader for long.
    pub leaderless: watch::Sender<bool>,
    /// Whether this member's state is known to be damaged.
    pub corrupt: watch::Sender<bool>,
    proposals: mpsc::Sender<pb::Proposal>,
    reads: mpsc::Sender<oneshot::Sender<Result<(), EtcdError>>>,
    started: tokio::time::Instant,
}

impl Node {
    /// Starts the tasks that propose and that order reads.
    pub fn start(config: Arc<Config>, machine: Arc<Machine>, consensus: Consensus) -> Arc<Self> {
        let (proposals, proposal_queue) = mpsc::channel(QUEUE);
        let (reads, read_queue) = mpsc::channel(QUEUE);
        let node = Arc::new(Self {
            config,
            machine,
            consensus,
            metrics: Metrics::default(),
            deadlines: Mutex::default(),
            leaderless: watch::Sender::new(false),
            corrupt: watch::Sender::new(false),
            proposals,
            reads,
            started: tokio::time::Instant::now(),
        });
        tokio::spawn(propose::propose_loop(Arc::downgrade(&node), proposal_queue));
        tokio::spawn(propose::read_loop(Arc::downgrade(&node), read_queue));
        node
    }

    /// How long a request may take: etcd's 5 s plus twice the election timeout.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.config.timing.election
    }

    /// Time on this member's monotonic clock.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The header of every response.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        let (member_id, cluster_id) = self.consensus.ids();
        ResponseHeader { cluster_id, member_id, revision, raft_term: self.consensus.status().term }
    }

    /// A header with the current revision.
    pub fn header_now(&self) -> Option<ResponseHeader> {
        Some(self.header(self.machine.revision()))
    }

    /// Completes a header that carries only the revision.
    pub fn fill(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |h| h.revision);
        *header = Some(self.header(revision));
    }

    /// Has something carried out for the cluster itself. Returns when it is applied here.
    pub async fn propose(&self, op: Op) -> Result<Outcome, Status> {
        let caller = pb::Caller { internal: true, ..Default::default() };
        self.propose_as(op, Some(caller)).await
    }

    /// Has a request carried out by the cluster. Returns when it is applied here.
    pub async fn propose_as(&self, op: Op, caller: Option<pb::Caller>) -> Result<Outcome, Status> {
        let is_internal = caller.as_ref().is_some_and(|caller| caller.internal);
        if !is_internal && !matches!(op, Op::Alarm(_)) {
            self.must_be_sound()?;
        }
        let waiting = self.machine.waiters.register();
        let proposal = pb::Proposal { id: waiting.id, op: Some(op), caller };
        if proposal.encoded_len() > self.config.max_request_bytes + 512 {
            return Err(EtcdError::RequestTooLarge.into());
        }
        if self.proposals.send(proposal).await.is_err() {
            return Err(EtcdError::Stopped.into());
        }
        match tokio::time::timeout(self.request_timeout(), waiting.outcome()).await {
            Ok(Some(answer)) => answer.map_err(Status::from),
            Ok(None) => Err(EtcdError::Stopped.into()),
            Err(_) => Err(EtcdError::Timeout.into()),
        }
    }

    /// Refuses when this member's state is known to be damaged.
    pub fn must_be_sound(&self) -> Result<(), EtcdError> {
        let (id, _) = self.consensus.ids();
        match self.machine.has_alarm(id, AlarmType::Corrupt) {
            true => Err(EtcdError::Corrupt),
            false => Ok(()),
        }
    }

    /// Returns when a read here sees everything that was acknowledged before the call.
    pub async fn linearize(&self) -> Result<(), Status> {
        let (tx, rx) = oneshot::channel();
        let stopped = || Status::from(EtcdError::Stopped);
        self.reads.send(tx).await.map_err(|_| stopped())?;
        match tokio::time::timeout(self.request_timeout(), rx).await {
            Ok(Ok(answer)) => answer.map_err(Status::from),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(EtcdError::Timeout.into()),
        }
    }

    /// Renews a lease, if this member leads.
    pub async fn renew_here(&self, id: i64) -> Result<pb::LeaseTimeResponse, Status> {
        // A leader that others have replaced would renew what has ended elsewhere.
        self.linearize().await?;
        let mut taken_back = None;
        let renewed = self.with_lease(id, |deadlines, now| {
            let ttl = deadlines.renew(id, now)?;
            taken_back = deadlines.take_back(id);
            Some(ttl)
        });
        if let Some(times) = taken_back {
            // What the next leader would go by is not true any more.
            self.propose(Op::LeaseTimes(times)).await?;
        }
        Ok(renewed)
    }

    /// Tells a lease's time, if this member leads.
    pub async fn lease_time_here(&self, id: i64) -> Result<pb::LeaseTimeResponse, Status> {
        self.linearize().await?;
        Ok(self.with_lease(id, |deadlines, now| deadlines.remaining(id, now)))
    }

    /// Hands out the deadlines, brought up to date, if this member leads.
    pub fn lead_leases<T>(&self, then: impl FnOnce(&mut Deadlines, Duration) -> T) -> Option<T> {
        let status = self.consensus.status();
        let state = self.machine.read();
        // Before its own first entry a leader does not know what the last one has left.
        let knows = state.applied.is_some_and(|(term, _)| term == status.term);
        if !status.is_leader || !knows {
            return None;
        }
        let now = self.now();
        let mut deadlines = self.deadlines.lock().expect("no panic while held");
        deadlines.lead(status.term, &state.store, now, self.config.timing.election);
        Some(then(&mut deadlines, now))
    }

    fn with_lease(
        &self,
        id: i64,
        ask: impl FnOnce(&mut Deadlines, Duration) -> Option<i64>,
    ) -> pb::LeaseTimeResponse {
        let answer = self.lead_leases(|deadlines, now| {
            let ttl = ask(deadlines, now)?;
            let granted_ttl = deadlines.granted(id)?;
            Some(pb::LeaseTimeResponse { ttl, granted_ttl, ..Default::default() })
        });
        let of = |kind: Kind| pb::LeaseTimeResponse { kind: kind.into(), ..Default::default() };
        match answer {
            None => of(Kind::NotLeader),
            Some(None) => of(Kind::NotFound),
            Some(Some(response)) => response,
        }
    }

    /// Asks the leader to renew a lease (or only for its time). `None`: there is no such lease.
    pub async fn lease_at_leader(
        &self,
        id: i64,
        renew: bool,
    ) -> Result<Option<pb::LeaseTimeResponse>, Status> {
        let deadline = tokio::time::Instant::now() + self.request_timeout();
        loop {
            let status = self.consensus.status();
            let answer = match status.leader {
                Some(_) if status.is_leader && renew => self.renew_here(id).await,
                Some(_) if status.is_leader => self.lease_time_here(id).await,
                Some(leader) => self.ask_lease(leader, id, renew).await,
                None => Err(EtcdError::NoLeader.into()),
            };
            match answer {
                Ok(r) if r.kind() == Kind::Ok => return Ok(Some(r)),
                Ok(r) if r.kind() == Kind::NotFound => return Ok(None),
                _ if tokio::time::Instant::now() > deadline => {
                    return Err(EtcdError::Timeout.into());
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn ask_lease(
        &self,
        leader: u64,
        id: i64,
        renew: bool,
    ) -> Result<pb::LeaseTimeResponse, Status> {
        let mut peer = self.consensus.peer(leader)?;
        let request = pb::LeaseTimeRequest { id };
        let answer =
            if renew { peer.lease_renew(request).await } else { peer.lease_time(request).await };
        answer.map(tonic::Response::into_inner)
    }
}
