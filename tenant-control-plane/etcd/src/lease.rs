//! When leases end. Which leases there are, and what hangs on them, is replicated state
//! ([`crate::mvcc::store`]); how much time each has left is known to the leader, which tells the
//! others from time to time, so that the next leader neither extends nor shortens long ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::mvcc::store::{Lease, Store};
use crate::pb;

/// Time on the leader's monotonic clock, from any fixed point.
pub type Instant = Duration;

/// Deadlines of all leases, on the leader.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// The term in which this member leads, and for which the table is.
    term: u64,
    /// The changes of the leases that it has seen.
    seen: u64,
    by_id: HashMap<i64, (Instant, i64)>,
    by_time: BTreeSet<(Instant, i64)>,
    /// Leases about which something has been told since their last renewal.
    told: HashSet<i64>,
    /// Counts what has been told in this term.
    words: u32,
}

impl Deadlines {
    /// Brings the table in line with the leases that exist, for a term in which this member leads.
    pub fn lead(&mut self, term: u64, store: &Store, now: Instant, grace: Duration) {
        if self.term != term {
            self.take_over(&store.leases, now, grace);
            self.term = term;
        } else if self.seen != store.lease_changes {
            self.sync(&store.leases, now);
        }
        self.seen = store.lease_changes;
    }

    /// The term for which the table is.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// This member has become the leader. Every lease has left what the last leader said, or its
    /// full time when it was renewed since, plus `grace` for what the election took.
    fn take_over(&mut self, leases: &BTreeMap<i64, Lease>, now: Instant, grace: Duration) {
        *self = Self::default();
        for (id, lease) in leases {
            let left = if lease.remaining > 0 { lease.remaining } else { lease.ttl };
            self.start(*id, lease.ttl, left, now + grace);
            if lease.remaining > 0 {
                self.told.insert(*id);
            }
        }
    }

    /// New leases start now.
    fn sync(&mut self, leases: &BTreeMap<i64, Lease>, now: Instant) {
        let gone: Vec<i64> =
            self.by_id.keys().filter(|id| !leases.contains_key(id)).copied().collect();
        for id in gone {
            self.remove(id);
            self.told.remove(&id);
        }
        for (id, lease) in leases {
            if !self.by_id.contains_key(id) {
                self.set(*id, lease.ttl, now);
            }
        }
    }

    /// What is left of the leases that last longer than `than`, for the next leader; so many of them
    /// at a time.
    pub fn tell(&mut self, than: Duration, now: Instant, many: usize) -> Vec<pb::LeaseTimes> {
        let long = self.by_id.iter().filter(|(_, (_, ttl))| *ttl > than.as_secs() as i64);
        let left = |id| self.remaining(id, now).unwrap_or_default();
        let leases: Vec<pb::LeaseGrant> = long
            .map(|(id, _)| pb::LeaseGrant { id: *id, remaining: left(*id), ..Default::default() })
            .filter(|lease| lease.remaining > 0)
            .collect();
        self.told.extend(leases.iter().map(|lease| lease.id));
        let word = self.word();
        leases
            .chunks(many)
            .map(|leases| pb::LeaseTimes { leases: leases.to_vec(), term: self.term, word })
            .collect()
    }

    /// What has to be said because a lease was renewed: that all of its time is left again.
    pub fn take_back(&mut self, id: i64) -> Option<pb::LeaseTimes> {
        self.told.remove(&id).then(|| pb::LeaseTimes {
            leases: vec![pb::LeaseGrant { id, ..Default::default() }],
            term: self.term,
            word: self.word(),
        })
    }

    /// Later words are greater, within a term and from one to the next.
    fn word(&mut self) -> u64 {
        self.words += 1;
        self.term << 32 | u64::from(self.words)
    }

    /// The full time of a lease, seconds.
    pub fn granted(&self, id: i64) -> Option<i64> {
        self.by_id.get(&id).map(|(_, ttl)| *ttl)
    }

    /// Starts or renews a lease: its deadline is `ttl` seconds from `now`.
    pub fn set(&mut self, id: i64, ttl: i64, now: Instant) {
        self.start(id, ttl, ttl, now);
    }

    fn start(&mut self, id: i64, ttl: i64, left: i64, now: Instant) {
        self.remove(id);
        let deadline = now + Duration::from_secs(u64::try_from(left).unwrap_or(0));
        self.by_id.insert(id, (deadline, ttl));
        self.by_time.insert((deadline, id));
    }

    /// Forgets a lease.
    pub fn remove(&mut self, id: i64) {
        if let Some((deadline, _)) = self.by_id.remove(&id) {
            self.by_time.remove(&(deadline, id));
        }
    }

    /// Renews a lease that has not run out; returns its full time in seconds.
    pub fn renew(&mut self, id: i64, now: Instant) -> Option<i64> {
        let (deadline, ttl) = *self.by_id.get(&id)?;
        if deadline <= now {
            return None;
        }
        self.set(id, ttl, now);
        Some(ttl)
    }

    /// Whole seconds that a lease has left.
    pub fn remaining(&self, id: i64, now: Instant) -> Option<i64> {
        let (deadline, _) = self.by_id.get(&id)?;
        Some(i64::try_from(deadline.saturating_sub(now).as_secs()).unwrap_or(i64::MAX))
    }

    /// Up to `max` leases that have run out.
    pub fn expired(&self, now: Instant, max: usize) -> Vec<i64> {
        self.by_time
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(max)
            .map(|(_, id)| *id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Duration::from_secs(s)
    }

    #[test]
    fn a_lease_expires_unless_it_is_renewed() {
        let mut d = Deadlines::default();
        d.set(1, 10, at(0));
        d.set(2, 5, at(0));
        assert_eq!(d.remaining(1, at(4)), Some(6));
        assert_eq!(d.expired(at(5), 10), [2]);
        assert_eq!(d.renew(2, at(5)), None, "too late");
        assert_eq!(d.renew(1, at(9)), Some(10));
        assert_eq!(d.expired(at(18), 10), [2]);
        assert_eq!(d.expired(at(19), 10), [2, 1]);
        assert_eq!(d.expired(at(19), 1), [2]);
        d.remove(2);
        assert_eq!(d.expired(at(19), 10), [1]);
    }

    fn leases(all: &[(i64, i64, i64)]) -> BTreeMap<i64, Lease> {
        let lease = |ttl, remaining| Lease { ttl, remaining, ..Lease::default() };
        all.iter().map(|(id, ttl, remaining)| (*id, lease(*ttl, *remaining))).collect()
    }

    #[test]
    fn a_new_leader_gives_every_lease_what_the_last_one_said_or_its_full_time() {
        let mut d = Deadlines::default();
        d.set(9, 1, at(0));
        d.take_over(&leases(&[(1, 10, 0), (3, 600, 40)]), at(100), at(1));
        assert_eq!(d.remaining(3, at(100)), Some(41));
        assert_eq!(d.renew(3, at(110)), Some(600));
        assert_eq!(d.remaining(3, at(110)), Some(600));
        d.remove(3);
        assert_eq!(d.remaining(1, at(100)), Some(11));
        assert_eq!(d.remaining(9, at(100)), None);
        d.sync(&leases(&[(1, 10, 0), (2, 3, 0)]), at(105));
        assert_eq!(d.remaining(1, at(105)), Some(6));
        assert_eq!(d.remaining(2, at(105)), Some(3));
        d.sync(&leases(&[(2, 3, 0)]), at(106));
        assert_eq!(d.remaining(1, at(106)), None);
    }

    #[test]
    fn what_is_left_of_long_leases_is_told() {
        let mut d = Deadlines::default();
        d.set(1, 60, at(0));
        d.set(2, 600, at(0));
        d.set(3, 90, at(0));
        let told = d.tell(at(60), at(100), 10);
        let left = pb::LeaseGrant { id: 2, remaining: 500, ..Default::default() };
        assert_eq!(told[0].leases, [left]);
        assert_eq!(d.take_back(1), None, "nothing was said about it");
        let back = d.take_back(2).unwrap();
        assert_eq!((back.leases[0].id, back.leases[0].remaining), (2, 0));
        assert!(back.word > told[0].word, "the last word counts");
        assert_eq!(d.take_back(2), None, "once");
    }

    #[test]
    fn a_table_is_for_one_term() {
        let store = |leases: &[(i64, i64, i64)], changes| Store {
            leases: self::leases(leases),
            lease_changes: changes,
            ..Store::default()
        };
        let mut d = Deadlines::default();
        d.lead(3, &store(&[(1, 10, 0)], 1), at(0), at(1));
        assert_eq!(d.remaining(1, at(0)), Some(11));
        d.lead(3, &store(&[(1, 10, 0)], 1), at(5), at(1));
        assert_eq!(d.remaining(1, at(5)), Some(6), "not begun anew");
        d.lead(3, &store(&[(1, 10, 0), (2, 10, 0)], 2), at(5), at(1));
        assert_eq!(d.remaining(2, at(5)), Some(10));
        // Another led meanwhile.
        d.lead(5, &store(&[(1, 10, 0), (2, 10, 4)], 2), at(60), at(1));
        assert_eq!((d.remaining(1, at(60)), d.remaining(2, at(60))), (Some(11), Some(5)));
        assert!(d.take_back(2).is_some(), "what the last leader said is taken back too");
    }
}
