//! Whether what happened may happen.
//!
//! The archive says which revision changed what. That fixes the order of all writes, so that the
//! checks need not search for one (as checkers for registers without revisions must): each revision
//! is made again by the model from the request that claims it, and everything else that was answered
//! must fit between the revisions, and in real time. Then watches and leases are held against it.

use std::collections::{BTreeMap, HashMap};
use std::slice::from_ref;
use std::time::Duration;

use etcd_api::pb::mvccpb::Event;
use etcd_api::pb::mvccpb::event::EventType;

use crate::history::{Call, History, Lease, Outcome, Watched, is_same};
use crate::model::{Request, Step, contains};
use crate::replay::Replay;

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
    let answer = Step::new(&states.keys, keys.clone(), at + 1).run(&call.request);
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
        Some((compacted, at)) if compacted <= from || !history.was_compacted(compacted, at) => {
            Err(format!("a watch from {from} was ended, because of a compaction at {compacted}"))
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
