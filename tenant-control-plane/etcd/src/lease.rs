//! When leases end. Which leases there are, and what hangs on them, is replicated state
//! ([`crate::mvcc::store`]); how much time each has left is known to the leader alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Time on the leader's monotonic clock, from any fixed point.
pub type Instant = Duration;

/// Deadlines of all leases, on the leader.
#[derive(Debug, Default)]
pub struct Deadlines {
    by_id: HashMap<i64, (Instant, i64)>,
    by_time: BTreeSet<(Instant, i64)>,
}

impl Deadlines {
    /// This member has become the leader: it cannot know when a lease was last renewed, so every
    /// lease gets its full time again, plus `grace` for what the election took.
    pub fn take_over(&mut self, leases: &BTreeMap<i64, i64>, now: Instant, grace: Duration) {
        *self = Self::default();
        for (id, ttl) in leases {
            self.set(*id, *ttl, now + grace);
        }
    }

    /// Brings the table in line with the leases that exist: new ones start now.
    pub fn sync(&mut self, leases: &BTreeMap<i64, i64>, now: Instant) {
        let gone: Vec<i64> =
            self.by_id.keys().filter(|id| !leases.contains_key(id)).copied().collect();
        for id in gone {
            self.remove(id);
        }
        for (id, ttl) in leases {
            if !self.by_id.contains_key(id) {
                self.set(*id, *ttl, now);
            }
        }
    }

    /// Starts or renews a lease: its deadline is `ttl` seconds from `now`.
    pub fn set(&mut self, id: i64, ttl: i64, now: Instant) {
        self.remove(id);
        let deadline = now + Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
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

    #[test]
    fn a_new_leader_gives_every_lease_its_full_time() {
        let mut d = Deadlines::default();
        d.set(9, 1, at(0));
        d.take_over(&BTreeMap::from([(1, 10)]), at(100), at(1));
        assert_eq!(d.remaining(1, at(100)), Some(11));
        assert_eq!(d.remaining(9, at(100)), None);
        d.sync(&BTreeMap::from([(1, 10), (2, 3)]), at(105));
        assert_eq!(d.remaining(1, at(105)), Some(6));
        assert_eq!(d.remaining(2, at(105)), Some(3));
        d.sync(&BTreeMap::from([(2, 3)]), at(106));
        assert_eq!(d.remaining(1, at(106)), None);
    }
}
