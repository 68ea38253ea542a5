//! Counting results until there are enough of one kind in a row.

/// What a probe has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `successThreshold` good results in a row.
    Success,
    /// `failureThreshold` bad results in a row.
    Failure,
}

/// Counts equal results in a row.
#[derive(Debug)]
pub struct Counter {
    success_threshold: u64,
    failure_threshold: u64,
    /// Liveness and startup probes fail once per container: the count starts anew after it.
    reset_on_failure: bool,
    last: Option<bool>,
    run: u64,
}

impl Counter {
    /// Thresholds of at least 1.
    pub fn new(success_threshold: u64, failure_threshold: u64, reset_on_failure: bool) -> Self {
        Self { success_threshold, failure_threshold, reset_on_failure, last: None, run: 0 }
    }

    /// Takes one result in; the outcome when the threshold is reached (again).
    pub fn observe(&mut self, good: bool) -> Option<Outcome> {
        self.run = if self.last == Some(good) { self.run + 1 } else { 1 };
        self.last = Some(good);
        match good {
            true if self.run >= self.success_threshold => Some(Outcome::Success),
            false if self.run >= self.failure_threshold => {
                if self.reset_on_failure {
                    self.run = 0;
                }
                Some(Outcome::Failure)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row() {
        let mut counter = Counter::new(2, 3, false);
        let results = [true, false, false, true, true, false, false, false, false];
        let outcomes: Vec<_> = results.into_iter().map(|r| counter.observe(r)).collect();
        let (s, f) = (Some(Outcome::Success), Some(Outcome::Failure));
        assert_eq!(outcomes, [None, None, None, None, s, None, None, f, f]);
        let mut liveness = Counter::new(1, 2, true);
        let outcomes: Vec<_> =
            [false, false, false, false].into_iter().map(|r| liveness.observe(r)).collect();
        assert_eq!(outcomes, [None, f, None, f]);
    }
}
