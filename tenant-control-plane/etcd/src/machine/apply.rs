//! Applying log entries.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::pb::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};
use prost::Message;

use super::state::State;
use super::waiters::{Answer, Outcome};
use super::{Machine, waiters::Waiters};
use crate::access::check::Check;
use crate::access::token;
use crate::mvcc::store::{Revision, Store};
use crate::mvcc::txn::{self, Context, TxnError};
use crate::pb;
use crate::pb::auth_change::Change;
use crate::pb::proposal::Op;
use crate::storage::files::Files;
use crate::storage::log::{EntryType, LogEntry, LogId};

/// What applying a batch leaves to tell: answers by proposal id, and revisions to publish.
#[derive(Default)]
struct Effects {
    answers: Vec<(u64, Answer)>,
    revisions: Vec<Arc<Revision>>,
    sweep: bool,
    tokens: Vec<TokenEffect>,
    went_well: Vec<bool>,
}

/// What becomes of tokens.
enum TokenEffect {
    Assign { token: String, user: String },
    ForgetUser(String),
    ForgetAll,
}

impl Machine {
    /// Applies entries in order. After each the state, the applied index and the digest move
    /// together; then watchers, then callers, then readers learn of it.
    pub fn apply(&self, entry: &LogEntry, membership: Option<bytes::Bytes>) {
        let batch = match entry.entry_type {
            EntryType::Batch => pb::Batch::decode(entry.data.clone())
                .unwrap_or_else(|e| self.damaged(&format!("log entry {}: {e}", entry.index))),
            _ => pb::Batch::default(),
        };
        let mut effects = Effects::default();
        {
            let mut state = self.write();
            for proposal in batch.proposals {
                apply_one(
                    &mut state,
                    proposal,
                    entry,
                    self.log.files(),
                    &self.waiters,
                    &mut effects,
                );
            }
            if let Some(m) = membership {
                state.membership = m;
            }
            state.link(entry, &effects.went_well, &effects.revisions);
            state.applied = Some((entry.term, entry.index));
            self.guarded.store(state.access.enabled, Ordering::Release);
            self.alarmed.store(!state.alarms.is_empty(), Ordering::Release);
            self.digests.remember(entry.index, state.digest);
            // Within the lock: nobody is recognized by a token that has ended at a later revision.
            for effect in std::mem::take(&mut effects.tokens) {
                match effect {
                    // What is applied again after a restart was used long ago.
                    TokenEffect::Assign { .. } if entry.index < self.replayed => {}
                    TokenEffect::Assign { token, user } => self.tokens.assign(token, user),
                    TokenEffect::ForgetUser(user) => self.tokens.forget_user(&user),
                    TokenEffect::ForgetAll => self.tokens.forget_all(),
                }
            }
        }
        self.hub.publish(effects.revisions);
        for (id, answer) in effects.answers {
            self.waiters.finish(id, answer);
        }
        self.applied.send_replace(entry.index + 1);
        if effects.sweep {
            self.sweep_bell.notify_one();
        }
    }

    /// A member whose own data cannot be read or decoded must not go on: it would diverge.
    fn damaged(&self, what: &str) -> ! {
        self.log.files().disk().stop(what)
    }

    /// The log index up to which the checkpoint on disk reaches, plus one.
    pub fn checkpointed_next(&self) -> u64 {
        self.checkpointed.load(Ordering::Acquire)
    }
}

fn apply_one(
    state: &mut State,
    proposal: pb::Proposal,
    entry: &LogEntry,
    files: &Files,
    waiters: &Waiters,
    effects: &mut Effects,
) {
    let id = proposal.id;
    let Some(op) = proposal.op else { return };
    let answer = waiters.is_waiting(id);
    let locate = |value: &bytes::Bytes| entry.locate(value);
    let cx = Context { values: files, locate: &locate, answer };
    let check =
        Check { access: &state.access, store: &state.store, caller: proposal.caller.as_ref() };
    let outcome = match check.op(&op).map_err(TxnError::from) {
        Ok(()) => run(state, op, (entry.term, entry.index), &cx, effects),
        Err(e) => Err(e),
    };
    let outcome = match outcome {
        Ok(outcome) => Ok(outcome),
        Err(TxnError::Etcd(e)) => Err(e),
        Err(TxnError::Read(e)) => {
            files.disk().stop(&format!("applying entry {}: {e}", entry.index))
        }
    };
    effects.went_well.push(outcome.is_ok());
    if answer {
        effects.answers.push((id, outcome));
    }
}

fn run(
    state: &mut State,
    op: Op,
    at: LogId,
    cx: &Context<'_>,
    effects: &mut Effects,
) -> Result<Outcome, TxnError> {
    let no_space = state.alarms.iter().any(|(_, a)| *a == AlarmType::Nospace as i32);
    let store = &mut state.store;
    let (outcome, revision) = match op {
        Op::Put(_) | Op::LeaseGrant(_) if no_space => return Err(EtcdError::NoSpace.into()),
        Op::Txn(r) if no_space && has_put(&r) => return Err(EtcdError::NoSpace.into()),
        Op::Put(r) => {
            let (response, revision) = txn::put(store, &r, cx)?;
            (Outcome::Put(response), revision)
        }
        Op::DeleteRange(r) => {
            let (response, revision) = txn::delete_range(store, &r, cx)?;
            (Outcome::DeleteRange(response), revision)
        }
        Op::Txn(r) => {
            let (response, revision) = txn::txn(store, &r, cx)?;
            (Outcome::Txn(response), revision)
        }
        Op::Compact(r) => {
            store.compact(r.revision)?;
            effects.sweep = true;
            (Outcome::Done(store.revision), None)
        }
        Op::LeaseGrant(r) => {
            store.grant(r.id, r.ttl)?;
            (Outcome::Done(store.revision), None)
        }
        Op::LeaseExpired(r) if r.term != at.0 => (Outcome::Done(store.revision), None),
        Op::LeaseExpired(pb::LeaseExpired { id, .. }) | Op::LeaseRevoke(id) => {
            let revision = store.revoke(id)?;
            (Outcome::Done(store.revision), revision)
        }
        Op::LeaseTimes(r) => {
            lease_times(store, r, at.0);
            (Outcome::Done(store.revision), None)
        }
        Op::Alarm(r) => (Outcome::Alarms(alarm(state, &r)), None),
        Op::Publish(mut m) => {
            // A member that tells its name does not know whether it was added with a vote.
            m.promote |= state.members.get(&m.id).is_some_and(|old| old.promote);
            state.members.insert(m.id, m);
            (Outcome::Done(state.store.revision), None)
        }
        Op::ForgetMember(id) => {
            state.members.remove(&id);
            state.alarms.retain(|(member, _)| *member != id);
            (Outcome::Done(state.store.revision), None)
        }
        Op::Auth(r) => {
            change_access(state, r, effects)?;
            (Outcome::Done(state.store.revision), None)
        }
        Op::BeginDigest(_) => {
            state.begin_digest();
            (Outcome::Done(state.store.revision), None)
        }
        Op::Login(r) => (login(state, r, at.1, effects)?, None),
    };
    effects.revisions.extend(revision.map(Arc::new));
    Ok(outcome)
}

/// What the leader of a term says is left of leases: of each its last word counts.
fn lease_times(store: &mut Store, r: pb::LeaseTimes, term: u64) {
    if r.term != term {
        return;
    }
    for told in r.leases {
        if let Some(lease) = store.leases.get_mut(&told.id)
            && lease.word <= r.word
        {
            lease.remaining = told.remaining;
            lease.word = r.word;
        }
    }
}

fn change_access(
    state: &mut State,
    r: pb::AuthChange,
    effects: &mut Effects,
) -> Result<(), EtcdError> {
    let Some(change) = r.change else { return Ok(()) };
    let token_effect = match &change {
        Change::Disable(_) => Some(TokenEffect::ForgetAll),
        Change::UserDelete(r) => Some(TokenEffect::ForgetUser(r.name.clone())),
        Change::UserChangePassword(r) => Some(TokenEffect::ForgetUser(r.name.clone())),
        _ => None,
    };
    state.access.change(change)?;
    effects.tokens.extend(token_effect);
    Ok(())
}

fn login(
    state: &State,
    r: pb::Login,
    index: u64,
    effects: &mut Effects,
) -> Result<Outcome, EtcdError> {
    if !state.access.enabled {
        return Err(EtcdError::AuthNotEnabled);
    }
    let user = state.access.users.get(&r.user).ok_or(EtcdError::AuthFailed)?;
    if user.options.is_some_and(|options| options.no_password) {
        return Err(EtcdError::AuthFailed);
    }
    let token = token::name(&r.token_prefix, index);
    effects.tokens.push(TokenEffect::Assign { token, user: r.user });
    Ok(Outcome::LoggedIn { index, auth_revision: state.access.revision })
}

fn has_put(r: &etcd_api::pb::etcdserverpb::TxnRequest) -> bool {
    use etcd_api::pb::etcdserverpb::request_op::Request;
    r.success.iter().chain(&r.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(t)) => has_put(t),
        _ => false,
    })
}

/// Member 0 means all members; type NONE means all types.
fn alarm(state: &mut State, r: &AlarmRequest) -> Vec<AlarmMember> {
    let matches = |(member, kind): &(u64, i32)| {
        (r.member_id == 0 || r.member_id == *member)
            && (r.alarm == AlarmType::None as i32 || r.alarm == *kind)
    };
    let touched: Vec<(u64, i32)> = match r.action() {
        AlarmAction::Get => state.alarms.iter().copied().filter(matches).collect(),
        AlarmAction::Activate => {
            let new = (r.member_id, r.alarm);
            if r.alarm == AlarmType::None as i32 || !state.alarms.insert(new) {
                Vec::new()
            } else {
                vec![new]
            }
        }
        AlarmAction::Deactivate => {
            let gone: Vec<_> = state.alarms.iter().copied().filter(matches).collect();
            state.alarms.retain(|a| !matches(a));
            gone
        }
    };
    touched.into_iter().map(|(member_id, alarm)| AlarmMember { member_id, alarm }).collect()
}
