//! Keeps the services running: a state machine without clock, process or signal in it.
//!
//! ```text
//! Waiting ──containerd answers──► Due ──start──► Running ──ends──► Due (after a pause) …
//! ```
//! The shell around it is in `node.rs`.

use std::time::Duration;

/// The pause before the first restart; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A service that ran for this long is healthy: its next restart is the first again.
const HEALTHY: Duration = Duration::from_secs(60);

/// What is true of one service now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started because containerd does not answer yet. Due follows.
    Waiting,
    /// To be started at this time. Running follows.
    Due(Duration),
    /// A process exists. Due follows when it ends.
    Running {
        /// Its id.
        pid: u32,
        /// When it was started.
        since: Duration,
    },
}

/// All services of the node, in the order of the table. Times count from any fixed origin.
#[derive(Debug)]
pub struct Supervisor {
    services: Vec<(State, Duration)>,
}

impl Supervisor {
    /// `needs_containerd` for each service, in order.
    pub fn new(needs_containerd: &[bool]) -> Self {
        let state = |waits: &bool| if *waits { State::Waiting } else { State::Due(Duration::ZERO) };
        Self { services: needs_containerd.iter().map(|w| (state(w), FIRST_PAUSE)).collect() }
    }

    /// containerd answers for the first time.
    pub fn containerd_ready(&mut self, now: Duration) {
        for (state, _) in &mut self.services {
            if *state == State::Waiting {
                *state = State::Due(now);
            }
        }
    }

    /// Indexes of the services to start now.
    pub fn due(&self, now: Duration) -> Vec<usize> {
        let due = |state: State| matches!(state, State::Due(at) if at <= now);
        (0..self.services.len()).filter(|i| due(self.services[*i].0)).collect()
    }

    /// The time of the next start, if one is planned.
    pub fn next(&self) -> Option<Duration> {
        let at = |(state, _): &(State, Duration)| match state {
            State::Due(at) => Some(*at),
            _ => None,
        };
        self.services.iter().filter_map(at).min()
    }

    /// Service `index` was started.
    pub fn started(&mut self, index: usize, pid: u32, now: Duration) {
        self.services[index].0 = State::Running { pid, since: now };
    }

    /// Service `index` could not be started.
    pub fn not_started(&mut self, index: usize, now: Duration) {
        self.pause(index, now);
    }

    /// A process has ended. Returns the service whose process it was and the pause before its next
    /// start; none for an orphan of a container.
    pub fn ended(&mut self, ended: u32, now: Duration) -> Option<(usize, Duration)> {
        let index = self
            .services
            .iter()
            .position(|(state, _)| matches!(state, State::Running { pid, .. } if *pid == ended))?;
        if let State::Running { since, .. } = self.services[index].0
            && now.saturating_sub(since) >= HEALTHY
        {
            self.services[index].1 = FIRST_PAUSE;
        }
        Some((index, self.pause(index, now)))
    }

    /// Process ids of what runs, last started service first.
    pub fn running(&self) -> Vec<u32> {
        let pid = |(state, _): &(State, Duration)| match state {
            State::Running { pid, .. } => Some(*pid),
            _ => None,
        };
        self.services.iter().rev().filter_map(pid).collect()
    }

    /// Whether every service was started at least once.
    pub fn all_started(&self) -> bool {
        self.services.iter().all(|(state, pause)| match state {
            State::Running { .. } => true,
            State::Waiting => false,
            // Ended since, or not started yet.
            State::Due(_) => *pause > FIRST_PAUSE,
        })
    }

    fn pause(&mut self, index: usize, now: Duration) -> Duration {
        let (state, pause) = &mut self.services[index];
        let this = *pause;
        *state = State::Due(now + this);
        *pause = (this * 2).min(LONGEST_PAUSE);
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn others_wait_for_containerd() {
        let mut all = Supervisor::new(&[false, true]);
        assert_eq!(all.due(s(0)), [0]);
        all.started(0, 10, s(0));
        assert!(all.due(s(5)).is_empty() && all.next().is_none() && !all.all_started());
        all.containerd_ready(s(5));
        assert_eq!(all.due(s(5)), [1]);
        all.started(1, 11, s(5));
        assert!(all.all_started());
        assert_eq!(all.running(), [11, 10]);
    }

    #[test]
    fn restarts_pause_longer_and_a_healthy_run_forgets() {
        let mut all = Supervisor::new(&[false]);
        let mut now = s(0);
        let mut pauses = Vec::new();
        for pid in 1..=9 {
            all.started(0, pid, now);
            let (index, pause) = all.ended(pid, now).unwrap();
            assert_eq!(index, 0);
            assert!(all.due(now).is_empty());
            now += pause;
            assert_eq!(all.due(now), [0]);
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]);
        all.started(0, 20, now);
        assert_eq!(all.ended(20, now + s(60)).unwrap().1, FIRST_PAUSE);
    }

    #[test]
    fn an_orphan_is_nobodys() {
        let mut all = Supervisor::new(&[false]);
        all.started(0, 7, s(0));
        assert_eq!(all.ended(8, s(1)), None);
        assert_eq!(all.running(), [7]);
    }

    #[test]
    fn a_service_that_ended_again_still_counts_as_started() {
        let mut all = Supervisor::new(&[false]);
        assert!(!all.all_started());
        all.started(0, 7, s(0));
        all.ended(7, s(0));
        assert!(all.all_started());
    }
}
