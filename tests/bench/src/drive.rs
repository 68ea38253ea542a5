//! A closed loop of clients: each sends its next operation when the last one is answered.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;

/// How long an operation in flight may take after the time is up.
const LAST_ANSWER: Duration = Duration::from_secs(60);

/// How much work.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Operations in flight.
    pub clients: usize,
    /// Operations in all.
    pub operations: usize,
    /// No operation begins later than this.
    pub within: Duration,
}

/// What a workload took.
#[derive(Debug, Default)]
pub struct Sample {
    /// Of each operation, sorted.
    pub latencies: Vec<Duration>,
    /// From the first operation's begin to the last one's end.
    pub elapsed: Duration,
    /// Processor time of the server.
    pub server: Duration,
}

impl Sample {
    /// Operations.
    pub fn done(&self) -> usize {
        self.latencies.len()
    }

    /// Operations per second.
    pub fn per_second(&self) -> f64 {
        rate(self.done(), self.elapsed)
    }

    /// Operations per second of the server's processor time.
    pub fn per_cpu_second(&self) -> f64 {
        rate(self.done(), self.server)
    }
}

/// Things per second; zero when no time passed.
pub fn rate(count: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

/// Runs `op(client, index)` until all operations are done or the time is up. Indices begin with
/// `first` and are given out in order.
///
/// # Errors
/// An operation failed, or is not answered.
pub async fn drive(
    load: Load,
    first: usize,
    op: impl AsyncFn(usize, usize) -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let next = Cell::new(first);
    let started = Instant::now();
    let clients = (0..load.clients).map(|client| {
        let (next, op) = (&next, &op);
        async move {
            let mut latencies = Vec::new();
            while next.get() < first + load.operations && started.elapsed() < load.within {
                let index = next.replace(next.get() + 1);
                let began = Instant::now();
                op(client, index).await.with_context(|| format!("operation {index}"))?;
                latencies.push(began.elapsed());
            }
            anyhow::Ok(latencies)
        }
    });
    let limit = load.within + LAST_ANSWER;
    let all = tokio::time::timeout(limit, try_join_all(clients)).await;
    let elapsed = started.elapsed();
    let mut latencies = all.context("an operation was not answered")??.concat();
    latencies.sort_unstable();
    Ok(Sample { latencies, elapsed, server: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn load(clients: usize, operations: usize, within: Duration) -> Load {
        Load { clients, operations, within }
    }

    #[tokio::test]
    async fn every_operation_is_done_once() {
        let seen = RefCell::new(Vec::new());
        let sample = drive(load(7, 100, Duration::from_secs(60)), 5, async |_, index| {
            tokio::task::yield_now().await;
            seen.borrow_mut().push(index);
            Ok(())
        });
        assert_eq!(sample.await.unwrap().done(), 100);
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, (5..105).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn time_bounds_the_work_and_errors_end_it() {
        let within = Duration::from_millis(50);
        let sample = drive(load(2, usize::MAX / 2, within), 0, async |_, _| {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(())
        });
        let sample = sample.await.unwrap();
        assert!((2..=10).contains(&sample.done()), "{}", sample.done());
        let failed = drive(load(2, 10, within), 0, async |_, index| {
            anyhow::ensure!(index != 3, "no");
            Ok(())
        });
        assert_eq!(format!("{:#}", failed.await.unwrap_err()), "operation 3: no");
    }

    #[test]
    fn rates_of_no_time_are_zero() {
        assert_eq!(rate(10, Duration::ZERO), 0.0);
        assert_eq!(rate(10, Duration::from_secs(4)), 2.5);
    }
}
