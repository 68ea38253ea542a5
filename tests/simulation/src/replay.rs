//! Every revision, made again by the model.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::RequestOp;
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::mvccpb::Event;
use etcd_api::pb::mvccpb::event::EventType;

use crate::history::{Call, History, Moment, Outcome, is_same};
use crate::model::{Keys, Request, Step, deletion};

/// The keys after each revision, and which call made it.
pub struct Replay {
    /// The keys after each revision.
    pub keys: Vec<Keys>,
    /// Which call made each revision, as far as that is known.
    pub by: Vec<Option<usize>>,
}

impl Replay {
    /// Does everything once more.
    pub fn run(history: &History) -> Result<Self, String> {
        let last = history.archive.keys().next_back().copied().unwrap_or(1);
        if history.archived() != last {
            return Err(format!(
                "no watch has seen revision {}, but one has seen {last}",
                history.archived() + 1
            ));
        }
        // Nothing was changed at revisions 0 and 1.
        let mut replay = Self { keys: vec![Keys::new(); 2], by: vec![None; 2] };
        let claims = claims(history)?;
        let values = values(history);
        let mut unclaimed = Unclaimed::default();
        for (revision, (seen, events)) in &history.archive {
            let by = match claims.get(revision) {
                Some(call) => Some(*call),
                None => put_by(events, &values),
            };
            let keys = replay.keys.last().expect("not empty").clone();
            let mut step = Step::new(&replay.keys, keys, *revision);
            match by {
                Some(index) => {
                    let call = &history.calls[index];
                    if replay.by.contains(&Some(index)) || matches!(call.outcome, Outcome::Refused)
                    {
                        return Err(format!(
                            "revision {revision}: carried out twice, or although refused: {call:?}"
                        ));
                    }
                    let answer = step.run(&call.request);
                    if let Outcome::Done(_, real) = &call.outcome
                        && *real != answer
                    {
                        return Err(format!(
                            "revision {revision}: member {} answered {:?} with {real:?}, which \
                             should be {answer:?}",
                            call.member, call.request
                        ));
                    }
                    if call.invoked > *seen {
                        return Err(format!(
                            "revision {revision} was seen before it was asked for"
                        ));
                    }
                }
                None => unclaimed.explain(&mut step, events, history, *seen)?,
            }
            if !is_same(&step.events, events, history.compacted(*seen)) {
                return Err(format!(
                    "revision {revision}: watches told {events:?}, which should be {:?}",
                    step.events
                ));
            }
            let keys = step.keys;
            replay.keys.push(keys);
            replay.by.push(by);
        }
        Ok(replay)
    }

    /// The keys after a revision.
    pub fn at(&self, revision: i64) -> Option<&Keys> {
        self.keys.get(usize::try_from(revision).ok()?)
    }
}

/// Which calls say that they made a revision.
fn claims(history: &History) -> Result<HashMap<i64, usize>, String> {
    let mut claims: HashMap<i64, usize> = HashMap::new();
    for (index, call) in history.calls.iter().enumerate() {
        let Outcome::Done(revision, response) = &call.outcome else { continue };
        if !response.wrote() {
            continue;
        }
        if !history.archive.contains_key(revision) {
            return Err(format!("acknowledged, but lost: revision {revision} by {call:?}"));
        }
        if let Some(other) = claims.insert(*revision, index) {
            return Err(format!(
                "two writes claim revision {revision}: {call:?} and {:?}",
                history.calls[other]
            ));
        }
    }
    Ok(claims)
}

/// Every value is put by one call only.
fn values(history: &History) -> HashMap<Bytes, usize> {
    fn of<'a>(request: &'a Request, all: &mut Vec<&'a Bytes>) {
        match request {
            Request::Put(r) => all.push(&r.value),
            Request::Txn(r) => {
                for RequestOp { request } in r.success.iter().chain(&r.failure) {
                    if let Some(Op::RequestPut(r)) = request {
                        all.push(&r.value);
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = HashMap::new();
    for (index, call) in history.calls.iter().enumerate() {
        let mut all = Vec::new();
        of(&call.request, &mut all);
        found.extend(all.into_iter().map(|value| (value.clone(), index)));
    }
    found
}

fn put_by(events: &[Event], values: &HashMap<Bytes, usize>) -> Option<usize> {
    let puts = events.iter().filter(|event| event.r#type() == EventType::Put);
    puts.filter_map(|event| values.get(&event.kv.as_ref()?.value)).next().copied()
}

/// Deletions that nobody was answered for. Without an answer they may have been asked for by any of
/// several calls, but each call deletes once.
#[derive(Default)]
struct Unclaimed {
    /// Which calls may have made a revision.
    candidates: BTreeMap<i64, Vec<usize>>,
    /// Which revision a call is taken to have made.
    made: HashMap<usize, i64>,
}

impl Unclaimed {
    /// Explains a revision: by the end of a lease, or by a call whose outcome is not known.
    fn explain(
        &mut self,
        step: &mut Step<'_>,
        events: &[Event],
        history: &History,
        seen: Moment,
    ) -> Result<(), String> {
        let revision = step.revision;
        let before = step.keys.clone();
        let mut leases = HashSet::new();
        for event in events {
            let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
            let ended = step.keys.remove(&key);
            let Some(ended) = ended.filter(|_| event.r#type() == EventType::Delete) else {
                return Err(format!("revision {revision}: nobody asked for {event:?}"));
            };
            leases.insert(ended.lease);
            step.events.push(deletion(&ended, revision));
        }
        if leases.len() == 1 && !leases.contains(&0) {
            return Ok(());
        }
        let does = |call: &Call| {
            let mut again = Step::new(&[], before.clone(), revision);
            again.run(&call.request);
            again.events == step.events
        };
        let calls = history.calls.iter().enumerate();
        let may = calls.filter(|(_, call)| {
            matches!(call.request, Request::Delete(_))
                && matches!(call.outcome, Outcome::Unknown)
                && call.invoked < seen
                && does(call)
        });
        self.candidates.insert(revision, may.map(|(index, _)| index).collect());
        if self.assign(revision, &mut HashSet::new()) {
            return Ok(());
        }
        Err(format!("revision {revision}: nobody deleted {events:?}, or not once more"))
    }

    /// Finds a call for a revision; others may have to take another one.
    fn assign(&mut self, revision: i64, tried: &mut HashSet<usize>) -> bool {
        for call in self.candidates[&revision].clone() {
            if !tried.insert(call) {
                continue;
            }
            let other = self.made.get(&call).copied();
            if other.is_none_or(|other| self.assign(other, tried)) {
                self.made.insert(call, revision);
                return true;
            }
        }
        false
    }
}
