//! What happened, as those who were there tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::pb::mvccpb::Event;

use crate::model::{Request, Response};

/// A moment: how many moments came before it, and the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Of all, in order.
    pub number: u64,
    /// On the clients' clock.
    pub time: Duration,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is not known.
    Unknown,
    /// Nothing was done.
    Refused,
    /// The revision of the header, and the answer.
    Done(i64, Response),
}

/// One request of one client.
#[derive(Debug, Clone)]
pub struct Call {
    /// What was asked.
    pub request: Request,
    /// Whether any old state would do.
    pub serializable: bool,
    /// When it was asked.
    pub invoked: Moment,
    /// When the answer was there.
    pub returned: Option<Moment>,
    /// The answer.
    pub outcome: Outcome,
    /// Of whom.
    pub member: usize,
}

/// One message of a watch.
#[derive(Debug, Clone)]
pub struct Message {
    /// When it came.
    pub at: Moment,
    /// The header's revision.
    pub revision: i64,
    /// Events.
    pub events: Vec<Event>,
    /// Whether it says how far the watch is.
    pub is_progress: bool,
}

/// One watch from its creation to its end.
#[derive(Debug, Clone)]
pub struct Watched {
    /// First key.
    pub key: Bytes,
    /// End of the keys.
    pub range_end: Bytes,
    /// First revision; 0 is the one after that at which it was created.
    pub start: i64,
    /// The revision that the server named when it was created, and the moment.
    pub created: (i64, Moment),
    /// What came.
    pub messages: Vec<Message>,
    /// The compacted revision that was given as the reason, if the server ended it, and the moment.
    pub compacted: Option<(i64, Moment)>,
    /// Of whom.
    pub member: usize,
}

/// What is known of a lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Its length.
    pub ttl: Duration,
    /// When each renewal that was acknowledged was asked for; the grant is the first.
    pub renewals: Vec<Moment>,
    /// When somebody first asked to revoke it.
    pub revoked: Option<Moment>,
    /// The key that ends with it.
    pub key: Bytes,
}

/// All of it.
#[derive(Default)]
pub struct History {
    moments: u64,
    /// What the clock shows.
    pub now: Duration,
    /// Requests.
    pub calls: Vec<Call>,
    /// Watches.
    pub watches: Vec<Watched>,
    /// Leases by id.
    pub leases: BTreeMap<i64, Lease>,
    /// Events by revision, as the first watch told them, and when.
    pub archive: BTreeMap<i64, (Moment, Vec<Event>)>,
    /// The last revision that each member told to whoever watches everything.
    pub told: BTreeMap<usize, i64>,
    /// What was asked to be compacted, and when.
    pub compactions: Vec<(Moment, i64)>,
    /// What cannot be.
    pub violations: Vec<String>,
}

/// Shared by the clients.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<History>>);

impl Shared {
    /// To write in it.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().expect("no panic while held")
    }
}

impl History {
    /// The next moment.
    pub fn moment(&mut self) -> Moment {
        self.moments += 1;
        Moment { number: self.moments, time: self.now }
    }

    /// Notes what all keys' watch tells of one revision. All must tell the same.
    pub fn archive(&mut self, revision: i64, events: Vec<Event>, at: Moment) {
        let compacted = self.compacted(at);
        match self.archive.get_mut(&revision) {
            None => {
                self.archive.insert(revision, (at, events));
            }
            Some((_, known)) if is_same(known, &events, compacted) => {
                for (known, told) in known.iter_mut().zip(events) {
                    known.prev_kv = known.prev_kv.take().or(told.prev_kv);
                }
            }
            Some((_, known)) => self
                .violations
                .push(format!("two stories of revision {revision}: {known:?} and {events:?}")),
        }
    }

    /// Everything in the order in which it was seen.
    pub fn story(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (number, call) in self.calls.iter().enumerate() {
            lines.push((
                call.invoked,
                format!("call {number} at {}: {:?}", call.member, call.request),
            ));
            let answer = format!("answer to {number}: {:?}", call.outcome);
            lines.extend(call.returned.map(|at| (at, answer)));
        }
        for (number, watch) in self.watches.iter().enumerate() {
            let about = format!("{:?}..{:?} at {}", watch.key, watch.range_end, watch.member);
            let began = format!("watch {number} of {about} from {}", watch.start);
            let (revision, at) = watch.created;
            lines.push((at, format!("{began}: {revision}")));
            for message in &watch.messages {
                let (revision, events) = (message.revision, &message.events);
                lines.push((message.at, format!("watch {number}: {revision} {events:?}")));
            }
        }
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().map(|(at, what)| format!("{:?} {what}", at.time)).collect()
    }

    /// Whether somebody had asked for this compaction by then.
    pub fn was_compacted(&self, revision: i64, at: Moment) -> bool {
        self.compactions.iter().any(|(asked, r)| *asked < at && *r == revision)
    }

    /// What may have been compacted by then.
    pub fn compacted(&self, at: Moment) -> i64 {
        let before = self.compactions.iter().filter(|(asked, _)| *asked < at);
        before.map(|(_, revision)| *revision).max().unwrap_or(0)
    }

    /// The revision up to which nothing is missing in the archive.
    pub fn archived(&self) -> i64 {
        let mut last = 1;
        for revision in self.archive.keys() {
            if *revision != last + 1 {
                break;
            }
            last = *revision;
        }
        last
    }
}

/// Whether two stories are the same. The previous value may be missing when it was compacted.
pub fn is_same(some: &[Event], others: &[Event], compacted: i64) -> bool {
    let same = |(one, other): (&Event, &Event)| {
        let revision = one.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let forgotten = one.prev_kv.is_none() || other.prev_kv.is_none();
        one.r#type == other.r#type
            && one.kv == other.kv
            && (one.prev_kv == other.prev_kv || forgotten && revision <= compacted)
    };
    some.len() == others.len() && some.iter().zip(others).all(same)
}
