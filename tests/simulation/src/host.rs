//! One simulated process: a runtime of its own with a clock of its own.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

/// A process that runs.
pub struct Process {
    runtime: Runtime,
    /// What its clock showed first.
    started: Instant,
    /// How much time has passed on its clock.
    elapsed: Duration,
    main: JoinHandle<anyhow::Result<()>>,
}

impl Process {
    /// Starts one. What its main task does first it does in the first step.
    pub fn start(main: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without input and output needs nothing");
        let started = runtime.block_on(async { Instant::now() });
        let main = runtime.spawn(main);
        Self { runtime, started, elapsed: Duration::ZERO, main }
    }

    /// Lets it run for so long by its own clock.
    pub fn step(&mut self, time: Duration) {
        self.elapsed += time;
        let until = self.started + self.elapsed;
        self.runtime.block_on(async { tokio::time::sleep_until(until).await });
    }

    /// It slept for so long: time has passed, and nothing has happened.
    pub fn oversleep(&mut self, time: Duration) {
        self.elapsed += time;
        let until = self.started + self.elapsed;
        self.runtime.block_on(async {
            let now = Instant::now();
            if until > now {
                tokio::time::advance(until - now).await;
            }
        });
    }

    /// What its clock showed first.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Adds a task.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// The outcome of a task that has finished.
    pub fn wait<T>(&self, task: JoinHandle<T>) -> Result<T, JoinError> {
        self.runtime.block_on(task)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        if !self.main.is_finished() {
            return None;
        }
        Some(match self.runtime.block_on(&mut self.main) {
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(e)) => format!("{e:#}"),
            Err(e) => format!("its main task: {e}"),
        })
    }
}
