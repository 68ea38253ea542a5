//! Whether what happened may happen.
//!
//! The archive says which revision changed what. That fixes the order of all writes, so that the
//! checks need not search for one (as checkers for registers without revisions must): each revision
//! is made again by the model from the request that claims it, and everything else that was answered
//! must fit between the revisions, and in real time. Then watches and leases are held against it.

use std::collections::{BTreeMap, HashMap};
use std::slice::from_ref;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::pb::etcdserverpb::request_op::Request as Op;
use etcd_api::pb::etcdserverpb::{DeleteRangeRequest, RequestOp};
use etcd_api::pb::mvccpb::Event;
use etcd_api::pb::mvccpb::event::EventType;

use crate::history::{Call, History, Lease, Outcome, Watched, is_same};
use crate::model::{Keys, Request, Step, contains, deletion};

/// How much faster than true a member's clock may run.
pub const FASTEST_CLOCK: f64 = 1.05;

/// Everything that is wrong, in words.
pub fn violations(history: &History) -> Vec<String> {
    let mut found = history.violations.clone();
    let states = match Replay::run(history) {
        Ok(states) => states,
        Err(e) => {
            found.push(e);
            return found;
        }
    };
    found.extend(history.calls.iter().filter_map(|call| reads(call, &states).err()));
    found.extend(real_time(history, &states));
    for watch in &history.watches {
        found.extend(watched(watch, history).err());
    }
    for (id, lease) in &history.leases {
        found.extend(lease_end(*id, lease, history).err());
    }
    found
}

/// The keys after each revision, and which call made it.
struct Replay {
    keys: Vec<Keys>,
    by: Vec<Option<usize>>,
}

impl Replay {
    fn run(history: &History) -> Result<Self, String> {
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
        for (revision, (seen, events)) in &history.archive {
            let by = match claims.get(revision) {
                Some(call) => Some(*call),
                None => put_by(events, &values),
            };
            let keys = replay.keys.last().expect("not empty").clone();
            let mut step = Step::new(keys, *revision);
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
                None => unclaimed(&mut step, events, history, *seen)?,
            }
            // The archive lacks previous values that no watch was in time for.
            if !is_same(&step.events, events, i64::MAX) {
                return Err(format!(
                    "revision {revision}: watches told {events:?}, which should be {:?}",
                    step.events
                ));
            }
            replay.keys.push(step.keys);
            replay.by.push(by);
        }
        Ok(replay)
    }

    fn at(&self, revision: i64) -> Option<&Keys> {
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

/// Deletions that nobody was answered for: by a call whose outcome is not known, or by a lease.
fn unclaimed(
    step: &mut Step,
    events: &[Event],
    history: &History,
    seen: crate::history::Moment,
) -> Result<(), String> {
    let revision = step.revision;
    let unknown = |call: &&Call| {
        let Request::Delete(DeleteRangeRequest { key, range_end, .. }) = &call.request else {
            return false;
        };
        let covers =
            |event: &Event| event.kv.as_ref().is_some_and(|kv| contains(key, range_end, &kv.key));
        matches!(call.outcome, Outcome::Unknown) && call.invoked < seen && events.iter().all(covers)
    };
    let by_call = history.calls.iter().any(|call| unknown(&call));
    for event in events {
        let key = event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        let before = step.keys.remove(&key);
        let Some(before) = before.filter(|_| event.r#type() == EventType::Delete) else {
            return Err(format!("revision {revision}: nobody asked for {event:?}"));
        };
        if !by_call && before.lease == 0 {
            return Err(format!("revision {revision}: nobody deleted {before:?}"));
        }
        step.events.push(deletion(&before, revision));
    }
    Ok(())
}

/// Answers that changed nothing show the state at their revision.
fn reads(call: &Call, states: &Replay) -> Result<(), String> {
    let Outcome::Done(revision, real) = &call.outcome else { return Ok(()) };
    if real.wrote() {
        return Ok(());
    }
    let at = match &call.request {
        Request::Range(r) if r.revision > 0 => r.revision,
        _ => *revision,
    };
    let keys = states.at(at).ok_or_else(|| format!("there is no revision {at}: {call:?}"))?;
    let answer = Step::new(keys.clone(), at + 1).run(&call.request);
    if answer != *real {
        return Err(format!(
            "member {} answered {:?} with {real:?}, which at revision {at} is {answer:?}",
            call.member, call.request
        ));
    }
    Ok(())
}

/// What was acknowledged before a call began lies before it.
fn real_time(history: &History, states: &Replay) -> Vec<String> {
    enum Edge {
        Returned(i64),
        Invoked(usize),
    }
    let mut wrote: HashMap<usize, i64> = HashMap::new();
    for (revision, by) in states.by.iter().enumerate() {
        if let Some(call) = by {
            wrote.insert(*call, revision as i64);
        }
    }
    let mut edges = BTreeMap::new();
    for (index, call) in history.calls.iter().enumerate() {
        edges.insert(call.invoked, Edge::Invoked(index));
        if let (Some(returned), Outcome::Done(revision, _)) = (call.returned, &call.outcome) {
            edges.insert(returned, Edge::Returned(*revision));
        }
    }
    let (mut found, mut floor) = (Vec::new(), 0);
    for edge in edges.into_values() {
        let index = match edge {
            Edge::Returned(revision) => {
                floor = floor.max(revision);
                continue;
            }
            Edge::Invoked(index) => index,
        };
        let call = &history.calls[index];
        let revision = match (wrote.get(&index), &call.outcome) {
            (Some(revision), _) => *revision - 1,
            (None, Outcome::Done(revision, _)) if !call.serializable => *revision,
            _ => continue,
        };
        if revision < floor {
            found.push(format!("revision {floor} had been answered before this: {call:?}"));
        }
    }
    found
}

/// Ordered, unique, reliable, atomic, resumable, bookmarkable, with the right previous value.
fn watched(watch: &Watched, history: &History) -> Result<(), String> {
    let (at, _) = watch.created;
    let from = if watch.start == 0 { at + 1 } else { watch.start };
    let wants = |event: &&Event| {
        event.kv.as_ref().is_some_and(|kv| contains(&watch.key, &watch.range_end, &kv.key))
    };
    let mut due = history
        .archive
        .range(from..)
        .flat_map(|(_, (_, events))| events.iter().filter(wants))
        .peekable();
    let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let mut last = from - 1;
    for message in &watch.messages {
        let compacted = history.compacted(message.at);
        let told = |what: &str| {
            Err(format!(
                "watch of {:?}..{:?} from {from} at member {}: {what}: {message:?}",
                watch.key, watch.range_end, watch.member
            ))
        };
        if message.events.first().is_some_and(|event| revision_of(event) <= last) {
            return told("a revision comes twice, or in two parts");
        }
        for event in &message.events {
            match due.next() {
                Some(expected) if is_same(from_ref(expected), from_ref(event), compacted) => {}
                Some(expected) => return told(&format!("{expected:?} is due")),
                None => return told("nothing is due"),
            }
            last = last.max(revision_of(event));
        }
        if message.revision + i64::from(watch.start == 0) < from {
            return told("it is about a revision before the first");
        }
        if message.is_progress {
            last = last.max(message.revision);
        }
        if message.events.iter().any(|event| revision_of(event) > message.revision) {
            return told("the header is behind the events");
        }
        if due.peek().is_some_and(|event| revision_of(event) <= last) {
            return told("it is said to be further than what it has told");
        }
    }
    match watch.compacted {
        Some(compacted) if compacted <= from => {
            Err(format!("a watch from {from} was ended because of a compaction at {compacted}"))
        }
        _ => Ok(()),
    }
}

/// Nobody ends a lease before its time.
fn lease_end(id: i64, lease: &Lease, history: &History) -> Result<(), String> {
    let ended = history.archive.iter().find(|(_, (_, events))| {
        events.iter().any(|event| {
            event.r#type() == EventType::Delete
                && event.prev_kv.as_ref().is_some_and(|kv| kv.lease == id && kv.key == lease.key)
        })
    });
    let Some((revision, (seen, _))) = ended else { return Ok(()) };
    if lease.revoked.is_some_and(|revoked| revoked < *seen) {
        return Ok(());
    }
    let least = Duration::from_secs_f64(lease.ttl.as_secs_f64() / FASTEST_CLOCK);
    match lease.renewals.iter().find(|renewed| renewed.time + least > seen.time) {
        None => Ok(()),
        Some(renewed) => Err(format!(
            "lease {id:x} of {:?}, renewed at {:?}, has ended at {:?}, revision {revision}",
            lease.ttl, renewed.time, seen.time
        )),
    }
}
