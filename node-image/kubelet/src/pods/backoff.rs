//! Back-off between tries: 10 s, doubling to 5 min, forgotten after 10 min without a failure.

use std::time::{Duration, Instant};

/// The first delay.
const FIRST: Duration = Duration::from_secs(10);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(300);
/// After this long without another try, the next one starts from the first delay again.
const FORGET: Duration = Duration::from_secs(600);

/// The delay that grows with each failed try. `new` and `default` have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delay {
    current: Duration,
    /// The last failure or restart.
    at: Option<Instant>,
}

impl Delay {
    /// Records a try at `now`: the delay doubles.
    pub fn bump(&mut self, now: Instant) {
        let stale = self.at.is_none_or(|at| now.duration_since(at) > FORGET);
        self.current = if stale { FIRST } else { (self.current * 2).clamp(FIRST, LONGEST) };
        self.at = Some(now);
    }

    /// Until when the next try has to wait, counted from the last [`Delay::bump`].
    pub fn wait_until(&self, now: Instant) -> Option<Instant> {
        let until = self.at? + self.current;
        (until > now).then_some(until)
    }

    /// The delay that applies to something that ended at `ended`: zero when the last try is
    /// long past.
    pub fn after(&self, ended: Instant) -> Duration {
        match self.at {
            Some(at) if ended.saturating_duration_since(at) <= FORGET => self.current,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_minutes_and_forgets() {
        let start = Instant::now();
        let mut delay = Delay::default();
        assert_eq!(delay.after(start), Duration::ZERO);
        let mut seen = Vec::new();
        for _ in 0..7 {
            delay.bump(start);
            seen.push(delay.after(start).as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(delay.after(start + Duration::from_secs(601)), Duration::ZERO);
        delay.bump(start + Duration::from_secs(700));
        assert_eq!(delay.after(start + Duration::from_secs(700)), FIRST);
    }
}
