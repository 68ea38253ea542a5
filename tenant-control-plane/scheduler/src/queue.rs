//! Pods that wait for a node. Pure: time comes in as an argument.
//!
//! A pod is *active* (to be tried next, most important first), in *back-off* (tried lately), or
//! *unschedulable* (waiting for a change that may help). A change moves it on; a timer backs the
//! changes up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::plugins::Events;
use crate::pod::PodInfo;
use crate::room::Woken;

/// First pause after a failed attempt; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a pod waits for a change that helps before it is tried anyway.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// Time between looks for such pods.
const SWEEP: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, Instant, String);

#[derive(Clone, Debug)]
enum Place {
    Active(Rank),
    BackOff {
        until: Instant,
        helped_by: u16,
    },
    Unschedulable {
        helped_by: u16,
        since: Instant,
    },
    /// Being bound: in no queue.
    Taken,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    first_seen: Instant,
    attempts: u32,
    last_attempt: Option<Instant>,
    place: Place,
}

impl Entry {
    fn backoff_ends(&self) -> Option<Instant> {
        let last = self.last_attempt?;
        let doublings = self.attempts.saturating_sub(1).min(10);
        Some(last + BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX))
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, ()>,
    backoff: BTreeSet<(Instant, String)>,
    /// The unschedulable ones.
    idle: HashSet<String>,
    /// When the unschedulable pods are next looked at for those that waited too long.
    next_sweep: Option<Instant>,
}

/// A pod taken from the queue.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// When it first came to the queue.
    pub first_seen: Instant,
}

impl Queue {
    /// Takes in a new or changed pod. A change to an unschedulable pod makes it worth another try;
    /// gated pods are kept out.
    pub fn put(&mut self, pod: Arc<PodInfo>, now: Instant) {
        if pod.is_gated() {
            self.remove(&pod.uid);
            return;
        }
        let uid = pod.uid.clone();
        match self.entries.get_mut(&uid) {
            None => {
                let entry = Entry {
                    pod,
                    first_seen: now,
                    attempts: 0,
                    last_attempt: None,
                    place: Place::Taken,
                };
                self.entries.insert(uid.clone(), entry);
                self.activate(&uid, now);
            }
            Some(entry) => {
                // What the scheduler itself writes (conditions, nominations) is no change.
                let changed = entry.pod.pod.spec != pod.pod.spec || entry.pod.labels != pod.labels;
                entry.pod = pod;
                if changed && matches!(entry.place, Place::Unschedulable { .. }) {
                    self.activate(&uid, now);
                }
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.withdraw(uid);
        self.entries.remove(uid);
    }

    /// The next pod to try.
    pub fn take(&mut self, now: Instant) -> Option<Taken> {
        self.flush(now);
        let (rank, ()) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&rank.2).expect("ranks are made of entries");
        entry.place = Place::Taken;
        entry.attempts += 1;
        entry.last_attempt = Some(now);
        Some(Taken { pod: entry.pod.clone(), first_seen: entry.first_seen })
    }

    /// Puts a taken pod aside until a change of these kinds.
    pub fn wait_for(&mut self, uid: &str, helped_by: u16, now: Instant) {
        if let Some(entry) = self.entries.get_mut(uid)
            && matches!(entry.place, Place::Taken)
        {
            entry.place = Place::Unschedulable { helped_by, since: now };
            self.idle.insert(uid.to_owned());
        }
    }

    /// A try that came too early, while room is still being made, makes no pause longer.
    pub fn forgive(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
    }

    /// Puts a taken pod back for another try after its back-off.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        if self.entries.get(uid).is_some_and(|entry| matches!(entry.place, Place::Taken)) {
            self.activate(uid, now);
        }
    }

    /// Gives an unschedulable pod another try after its back-off, whatever it waits for.
    pub fn reconsider(&mut self, uid: &str, now: Instant) {
        let place = self.entries.get(uid).map(|entry| &entry.place);
        if matches!(place, Some(Place::Unschedulable { .. })) {
            self.activate(uid, now);
        }
    }

    /// Something changed: pods that it may help get another try.
    pub fn changed(&mut self, event: Events, now: Instant) {
        let is_helped = |uid: &&String| match self.entries.get(*uid).map(|entry| &entry.place) {
            Some(Place::Unschedulable { helped_by, .. }) => Events(*helped_by).intersects(event),
            _ => false,
        };
        let helped: Vec<_> = self.idle.iter().filter(is_helped).cloned().collect();
        for uid in helped {
            self.activate(&uid, now);
        }
    }

    /// The pods that wait for room on nodes, also those in back-off, and when each first came.
    pub fn waiting_for_room(&self) -> impl Iterator<Item = (Instant, &Arc<PodInfo>)> {
        let uids = self.idle.iter().chain(self.backoff.iter().map(|(_, uid)| uid));
        uids.filter_map(|uid| self.entries.get(uid)).filter_map(|entry| match entry.place {
            Place::Unschedulable { helped_by, .. } | Place::BackOff { helped_by, .. } => {
                let waits = Events(helped_by).intersects(Events::ROOM);
                waits.then_some((entry.first_seen, &entry.pod))
            }
            Place::Active(_) | Place::Taken => None,
        })
    }

    /// There is room. Pods that fit do not sit out their back-off.
    pub fn wake(&mut self, woken: &Woken, now: Instant) {
        woken.fit.iter().for_each(|uid| self.make_active(uid));
        woken.perhaps.iter().for_each(|uid| self.reconsider(uid, now));
    }

    /// When [`Queue::take`] may have something although nothing happens until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.idle.iter().filter_map(|uid| match self.entries.get(uid)?.place {
            Place::Unschedulable { since, .. } => Some(since + UNSCHEDULABLE_MAX + SWEEP),
            _ => None,
        });
        self.backoff.first().map(|(at, _)| *at).into_iter().chain(waiting).min()
    }

    /// How many pods are active, in back-off, and unschedulable.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.active.len(), self.backoff.len(), self.idle.len())
    }

    /// A pod that is known to the queue.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    fn withdraw(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Taken) {
            Place::Active(rank) => {
                self.active.remove(&rank);
            }
            Place::BackOff { until, .. } => {
                self.backoff.remove(&(until, uid.to_owned()));
            }
            Place::Unschedulable { .. } => {
                self.idle.remove(uid);
            }
            Place::Taken => {}
        }
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        let Some(end) = entry.backoff_ends().filter(|end| *end > now) else {
            return self.make_active(uid);
        };
        let helped_by = match entry.place {
            Place::Unschedulable { helped_by, .. } | Place::BackOff { helped_by, .. } => helped_by,
            Place::Active(_) | Place::Taken => 0,
        };
        self.withdraw(uid);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.place = Place::BackOff { until: end, helped_by };
            self.backoff.insert((end, uid.to_owned()));
        }
    }

    fn make_active(&mut self, uid: &str) {
        self.withdraw(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let rank = (Reverse(entry.pod.priority), entry.first_seen, uid.to_owned());
        entry.place = Place::Active(rank.clone());
        self.active.insert(rank, ());
    }

    fn flush(&mut self, now: Instant) {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid, now);
        }
        if self.next_sweep.is_some_and(|at| now < at) {
            return;
        }
        self.next_sweep = Some(now + SWEEP);
        let is_overdue = |uid: &&String| match self.entries.get(*uid).map(|entry| &entry.place) {
            Some(Place::Unschedulable { since, .. }) => now >= *since + UNSCHEDULABLE_MAX,
            _ => false,
        };
        let overdue: Vec<_> = self.idle.iter().filter(is_overdue).cloned().collect();
        for uid in overdue {
            self.activate(&uid, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    fn name(taken: Option<Taken>) -> Option<String> {
        taken.map(|taken| taken.pod.name.clone())
    }

    #[test]
    fn the_most_important_and_then_the_oldest_pod_comes_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("first", json!({})), now);
        queue.put(pod("second", json!({})), now + Duration::from_secs(1));
        queue.put(pod("urgent", json!({"priority": 9})), now + Duration::from_secs(2));
        queue.put(pod("gated", json!({"schedulingGates": [{"name": "g"}]})), now);
        let order: Vec<_> = std::iter::from_fn(|| name(queue.take(now))).collect();
        assert_eq!(order, ["urgent", "first", "second"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_a_change_that_helps_and_for_its_back_off() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        queue.put(pod("p", json!({})), start);
        queue.take(start).unwrap();
        queue.wait_for("p", Events::POD_REMOVED.0, start);
        queue.changed(Events::NODE_LABELS, start);
        assert_eq!(queue.sizes(), (0, 0, 1));
        queue.changed(Events::POD_REMOVED, start);
        assert_eq!(queue.sizes(), (0, 1, 0));
        assert_eq!(queue.next_deadline(), Some(at(1)));
        assert!(queue.take(start).is_none());
        assert!(queue.take(at(1)).is_some());
        queue.wait_for("p", Events::POD_REMOVED.0, at(1));
        assert!(queue.take(at(300)).is_none());
        assert!(queue.take(at(311)).is_some(), "the timer backs the changes up");
    }

    #[test]
    fn a_pod_that_fits_now_does_not_sit_out_its_back_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["fits", "perhaps", "not", "elsewhere"] {
            queue.put(pod(name, json!({})), now);
            queue.take(now).unwrap();
            let helped_by = if name == "elsewhere" { Events::NODE_ADDED } else { Events::ROOM };
            queue.wait_for(name, helped_by.0, now);
        }
        queue.changed(Events::NODE_ADDED, now);
        assert_eq!(queue.sizes(), (0, 1, 3));
        let mut waiting: Vec<_> = queue.waiting_for_room().map(|w| w.1.name.clone()).collect();
        waiting.sort();
        assert_eq!(waiting, ["fits", "not", "perhaps"]);
        queue.reconsider("fits", now);
        assert_eq!(queue.waiting_for_room().count(), 3, "also in back-off");
        let woken = Woken { fit: vec!["fits".into()], perhaps: vec!["perhaps".into()] };
        queue.wake(&woken, now);
        assert_eq!(queue.sizes(), (1, 2, 1));
        assert_eq!(name(queue.take(now)).as_deref(), Some("fits"));
        assert!(queue.take(now).is_none());
    }

    #[test]
    fn a_try_that_came_too_early_makes_no_pause_longer() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        queue.put(pod("p", json!({})), start);
        for second in 0..3 {
            queue.take(at(second)).unwrap();
            queue.forgive("p");
            queue.wait_for("p", 0, at(second));
            queue.reconsider("p", at(second));
            assert_eq!(queue.next_deadline(), Some(at(second + 1)));
        }
    }

    #[test]
    fn writes_of_the_scheduler_itself_are_no_change() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("p", json!({})), now);
        queue.take(now).unwrap();
        queue.wait_for("p", 0, now);
        queue.put(pod("p", json!({})), now);
        assert_eq!(queue.sizes(), (0, 0, 1));
        let later = now + Duration::from_secs(20);
        queue.put(pod("p", json!({"nodeSelector": {"a": "b"}})), later);
        assert_eq!(queue.sizes(), (1, 0, 0));
        queue.remove("p");
        assert_eq!(queue.sizes(), (0, 0, 0));
    }
}
