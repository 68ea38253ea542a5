//! What a member does by itself: ending leases, compacting, checkpoints, quota, telling its name.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use etcd_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::pb::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest};

use crate::config::AutoCompaction;
use crate::metrics::Counted;
use crate::node::Node;
use crate::pb;
use crate::pb::proposal::Op;
use crate::threads;

/// How often the leader looks for leases that have run out.
const LEASE_TICK: Duration = Duration::from_millis(250);
/// How often the leader tells what is left of leases; shorter ones are not worth it.
const LEASE_TIMES: Duration = Duration::from_secs(60);
/// Leases in one proposal, at most.
const TIMES_MAX: usize = 1000;
/// Leases that are revoked in one tick, at most.
const REVOKE_MAX: usize = 250;
const HOUSE_TICK: Duration = Duration::from_secs(1);
/// A checkpoint is due when the log has grown by this much, even with few entries.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Bytes of a checkpoint per key, roughly: a checkpoint waits until the log has grown by as much
/// as it would write, so that its cost stays a constant share of the writes.
const CHECKPOINT_KEY_BYTES: u64 = 100;

/// Starts all of it. The tasks end with the runtime.
pub fn start(node: &Arc<Node>) {
    tokio::spawn(Arc::clone(&node.machine).sweep_loop());
    tokio::spawn(lease_loop(Arc::clone(node)));
    tokio::spawn(house_loop(Arc::clone(node)));
    tokio::spawn(publish(Arc::clone(node)));
    tokio::spawn(leader_loop(Arc::clone(node)));
    tokio::spawn(crate::compare::run(Arc::clone(node)));
    if node.config.auto_compaction != AutoCompaction::Off {
        tokio::spawn(compact_loop(Arc::clone(node)));
    }
}

/// Tells the cluster this member's name and client URLs, until it knows.
async fn publish(node: Arc<Node>) {
    let (id, _) = node.consensus.ids();
    loop {
        let peer_urls =
            node.consensus.members().into_iter().find(|(m, ..)| *m == id).map(|(_, urls, _)| urls);
        let wanted = pb::MemberInfo {
            id,
            name: node.config.name.clone(),
            peer_urls: peer_urls.clone().unwrap_or_default(),
            client_urls: node.config.advertise_client_urls.clone(),
            promote: false,
        };
        if peer_urls.is_some() {
            let known = node.machine.read().members.get(&id).cloned();
            let known = known.map(|m| pb::MemberInfo { promote: false, ..m });
            if known.as_ref() == Some(&wanted) {
                return;
            }
            match node.propose(Op::Publish(wanted)).await {
                Ok(_) => return,
                Err(e) => tracing::debug!(error = %e, "publishing this member's name failed"),
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Counts leader changes, and tells watches that insist on a leader when there is none for long.
async fn leader_loop(node: Arc<Node>) {
    let mut last = None;
    let patience = 3 * node.config.timing.election;
    let mut since: Option<tokio::time::Instant> = None;
    let mut clock = tokio::time::interval(node.config.timing.election / 2);
    loop {
        clock.tick().await;
        node.consensus.rest_when_alone();
        let leader = node.consensus.status().leader;
        if leader.is_some() && leader != last {
            last = leader;
            node.metrics.count(Counted::LeaderChange);
            let (own, _) = node.consensus.ids();
            tracing::info!(
                leader.id = format_args!("{:x}", leader.unwrap_or(0)),
                leader.is_this_member = leader == Some(own),
                raft.term = node.consensus.status().term,
                "following a leader"
            );
        }
        if leader.is_some() {
            since = None;
        }
        let start = *since.get_or_insert_with(tokio::time::Instant::now);
        let none = leader.is_none() && start.elapsed() > patience;
        node.leaderless.send_if_modified(|was| std::mem::replace(was, none) != none);
    }
}

async fn lease_loop(node: Arc<Node>) {
    let mut clock = tokio::time::interval(LEASE_TICK);
    let mut told = node.now();
    let mut telling: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        clock.tick().await;
        let now = node.now();
        let expired = node
            .lead_leases(|deadlines, now| (deadlines.term(), deadlines.expired(now, REVOKE_MAX)));
        let Some((term, expired)) = expired else { continue };
        if !expired.is_empty() && leads(&node).await {
            for id in expired {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    // If it fails the lease is still expired at the next tick.
                    let op = Op::LeaseExpired(pb::LeaseExpired { id, term });
                    if let Err(e) = node.propose(op).await {
                        tracing::debug!(lease.id = id, error = %e, "ending a lease failed");
                    }
                });
            }
        }
        let is_idle = telling.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
        if is_idle && now.saturating_sub(told) >= LEASE_TIMES {
            told = now;
            telling = Some(tokio::spawn(tell_times(Arc::clone(&node))));
        }
    }
}

/// Whether a quorum still follows: a leader that was replaced does not know it by itself.
async fn leads(node: &Node) -> bool {
    let confirmed = tokio::time::timeout(node.config.timing.election, node.consensus.read_index());
    matches!(confirmed.await, Ok(Ok(_)))
}

/// Tells the other members what is left of long leases.
async fn tell_times(node: Arc<Node>) {
    let told = node.lead_leases(|deadlines, now| deadlines.tell(LEASE_TIMES, now, TIMES_MAX));
    for times in told.unwrap_or_default() {
        if let Err(error) = node.propose(Op::LeaseTimes(times)).await {
            tracing::debug!(%error, "telling what is left of leases failed");
            return;
        }
    }
}

/// Checkpoints, and the quota.
async fn house_loop(node: Arc<Node>) {
    let mut clock = tokio::time::interval(HOUSE_TICK);
    let (mut written, _) = node.machine.log.usage();
    let mut requested_at = 0;
    loop {
        clock.tick().await;
        let (total, _) = node.machine.log.usage();
        let done = node.machine.checkpointed_next();
        let entries = node.machine.applied_next().saturating_sub(done);
        let (keys, in_use) = {
            let state = node.machine.read();
            let live: u64 = state.store.live.values().sum();
            (state.store.index.len() as u64, live)
        };
        let grown = total.saturating_sub(written);
        let due = entries >= node.config.snapshot_count || grown >= CHECKPOINT_BYTES;
        if due && entries > 0 && grown >= keys * CHECKPOINT_KEY_BYTES && requested_at <= done {
            requested_at = done + 1;
            node.consensus.request_checkpoint().await;
        }
        if done >= requested_at && requested_at > 0 {
            requested_at = 0;
            written = total;
            tidy_segments(&node).await;
        }
        check_quota(&node, in_use).await;
        node.machine.tokens.sweep(node.config.token_ttl);
        crate::compare::raise_if_rotten(&node).await;
        let is_corrupt = node.must_be_sound().is_err();
        node.corrupt.send_if_modified(|was| std::mem::replace(was, is_corrupt) != is_corrupt);
        promote_joined(&node).await;
    }
}

/// Gives members that were added with a vote their vote once they have caught up.
async fn promote_joined(node: &Node) {
    if !node.consensus.status().is_leader {
        return;
    }
    let learners = node.consensus.members().into_iter().filter(|m| m.2);
    let due: Vec<u64> = {
        let state = node.machine.read();
        let wants = |id: &u64| state.members.get(id).is_some_and(|m| m.promote);
        learners.map(|(id, ..)| id).filter(wants).collect()
    };
    for id in due {
        if !node.consensus.is_caught_up(id) {
            continue;
        }
        match node.consensus.promote(id).await {
            Ok(()) => tracing::info!(member.id = format_args!("{id:x}"), "a member has its vote"),
            Err(e) => tracing::warn!(error = %e, "giving a member its vote failed"),
        }
    }
}

/// After a checkpoint: empties sparse segments, which the next checkpoint will let go.
async fn tidy_segments(node: &Node) {
    let from = node.machine.log.segment_from(0);
    match node.machine.evacuate(from).await {
        Ok(0) => {}
        Ok(copied) => tracing::info!(copied.bytes = copied, "emptied sparse log segments"),
        Err(e) => tracing::error!(error = %e, "sparse log segments cannot be emptied"),
    }
}

async fn check_quota(node: &Node, in_use: u64) {
    let (id, _) = node.consensus.ids();
    let raised = (id, AlarmType::Nospace as i32);
    if in_use < node.config.quota || node.machine.read().alarms.contains(&raised) {
        return;
    }
    tracing::error!(in_use.bytes = in_use, "the quota is exceeded; refusing writes");
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: id,
        alarm: AlarmType::Nospace.into(),
    };
    if let Err(e) = node.propose(Op::Alarm(alarm)).await {
        tracing::warn!(error = %e, "raising NOSPACE failed; trying again");
    }
}

/// Frees what can be freed now: two checkpoints with an evacuation between them.
pub async fn defragment(node: &Arc<Node>) -> io::Result<()> {
    while node.machine.sweep_some() {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let machine = Arc::clone(&node.machine);
        threads::block(move || {
            let view = machine.checkpoint()?;
            machine.free_segments(&view)
        })
        .await??;
        node.machine.evacuate(node.machine.log.segment_from(0)).await?;
    }
    Ok(())
}

/// Compacts on the leader. Revisions are sampled ten times per period (at least every hour).
async fn compact_loop(node: Arc<Node>) {
    let (interval, period) = match node.config.auto_compaction {
        AutoCompaction::Off => return,
        AutoCompaction::Revision(_) => (Duration::from_secs(300), Duration::ZERO),
        AutoCompaction::Periodic(p) => {
            ((p / 10).min(Duration::from_secs(3600)).max(Duration::from_millis(100)), p)
        }
    };
    let mut clock = tokio::time::interval(interval);
    let mut samples: VecDeque<(tokio::time::Instant, i64)> = VecDeque::new();
    loop {
        clock.tick().await;
        let now = tokio::time::Instant::now();
        let (revision, compacted) = {
            let state = node.machine.read();
            (state.store.revision, state.store.compacted)
        };
        let target = match node.config.auto_compaction {
            AutoCompaction::Revision(keep) => revision - keep,
            _ => {
                samples.push_back((now, revision));
                let mut target = 0;
                while let Some((at, rev)) = samples.front()
                    && now.duration_since(*at) >= period
                {
                    target = *rev;
                    samples.pop_front();
                }
                target
            }
        };
        if target > compacted && node.consensus.status().is_leader {
            let r = CompactionRequest { revision: target, physical: false };
            match node.propose(Op::Compact(r)).await {
                Ok(_) => tracing::info!(revision = target, "compacted"),
                Err(e) => tracing::warn!(error = %e, "compaction failed"),
            }
        }
    }
}
