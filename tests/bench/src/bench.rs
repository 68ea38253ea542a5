//! What a subject works with: processors, directories, a runtime, and the measuring itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lab::accounting;
use lab::mix::Origin;
use lab::places::Places;
use lab::process::{Process, Spec};
use tokio::runtime::Runtime;

use crate::drive::{Load, Sample, drive};
use crate::machine::Processors;

/// Control group above those of the servers.
const GROUP: &str = "marina-bench";
/// One operation in this many is done before the measurement, to open connections and fill caches.
const WARM_UP: usize = 20;
/// A server is at rest when it uses less of its processor than this, for a second.
const REST: Duration = Duration::from_millis(50);

/// One run of this program.
pub struct Bench {
    /// Whether the run is to end within two minutes.
    pub quick: bool,
    /// Where executables are.
    pub places: Places,
    /// Who runs where.
    pub processors: Processors,
    dir: PathBuf,
    runtime: Runtime,
    /// Locked as long as this run lasts.
    _lock: File,
}

impl Bench {
    /// Removes what a killed run left. Pins nothing: the caller's thread is already where the client
    /// is to be.
    ///
    /// # Errors
    /// Another run is under way, or the directory cannot be made.
    pub fn new(quick: bool, places: Places, processors: Processors) -> anyhow::Result<Self> {
        let dir = places.cache.join("bench");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let lock = File::create(dir.join("lock")).context("making a lock")?;
        lock.try_lock().context("another benchmark is running")?;
        accounting::remove(GROUP).context("is another benchmark running?")?;
        for name in ["scratch", "logs"] {
            let stale = dir.join(name);
            if stale.exists() {
                fs::remove_dir_all(&stale)
                    .with_context(|| format!("removing {}", stale.display()))?;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { quick, places, processors, dir, runtime, _lock: lock })
    }

    /// The directory of this program's files, logs among them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first of two, or the second in a quick run.
    pub fn either<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// An empty directory for data. It is removed at the end of the run, and made empty again when it
    /// is asked for again.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join("scratch").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    /// Starts the server under test, alone on its processor.
    ///
    /// # Errors
    /// The executable cannot be started.
    pub fn server(&self, spec: Spec, origin: Origin) -> anyhow::Result<Process> {
        self.start(spec, &origin.to_string(), Some(self.processors.server))
    }

    /// Starts one of several servers that are measured together and share what this thread has: all
    /// processors after [`machine::use_all`](crate::machine::use_all).
    ///
    /// # Errors
    /// The executable cannot be started.
    pub fn unpinned(&self, spec: Spec, who: &str) -> anyhow::Result<Process> {
        self.start(spec, who, None)
    }

    /// Starts what both sides share, on the client's processor.
    ///
    /// # Errors
    /// The executable cannot be started.
    pub fn helper(&self, spec: Spec) -> anyhow::Result<Process> {
        self.start(spec, "helper", Some(self.processors.client))
    }

    fn start(
        &self,
        mut spec: Spec,
        who: &str,
        processor: Option<usize>,
    ) -> anyhow::Result<Process> {
        spec.name = format!("{}-{who}", spec.name);
        spec.cpu = processor;
        Process::start(spec, GROUP, &self.dir.join("logs"))
    }

    /// Lets connections and timers be made outside of [`Self::block_on`] too, as long as the guard
    /// lives.
    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs the client until `work` is done.
    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// Asks every `pause` until there is an answer; the client's connections stay alive meanwhile.
    ///
    /// # Errors
    /// `process` ended, or there is no answer in time; `what` names what was waited for.
    pub fn wait<T>(
        &self,
        what: &str,
        process: &mut Process,
        (pause, within): (Duration, Duration),
        mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        self.block_on(async {
            loop {
                if let Some(answer) = ask().await? {
                    return Ok(answer);
                }
                process.check()?;
                if started.elapsed() > within {
                    bail!("{what}: not within {within:?}. {}", process.last_words());
                }
                tokio::time::sleep(pause).await;
            }
        })
    }

    /// Waits until a server is idle, so that its memory and its next figures are its own: at least a
    /// second, at most 20.
    ///
    /// # Errors
    /// Its processor time cannot be read.
    pub fn settle(&self, process: &Process) -> anyhow::Result<()> {
        for _ in 0..20 {
            let before = process.used()?;
            self.block_on(tokio::time::sleep(Duration::from_secs(1)));
            if process.used()? - before < REST {
                break;
            }
        }
        Ok(())
    }

    /// Processor time that a server at rest uses per second.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn idle(&self, process: &Process) -> anyhow::Result<Duration> {
        let before = process.used()?;
        let seconds = self.either(20, 5);
        self.block_on(tokio::time::sleep(Duration::from_secs(seconds.into())));
        Ok((process.used()? - before) / seconds)
    }

    /// Drives a workload against `server`. A twentieth of it is done before, unmeasured; `op` is
    /// given the client's number and an index that no other operation has: 0, 1, … without gaps.
    ///
    /// # Errors
    /// An operation fails.
    pub fn measure(
        &self,
        server: &Process,
        load: Load,
        op: impl AsyncFn(usize, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<Sample> {
        let within = load.within / 4;
        let warm_up = Load { operations: warm_up(load), within, ..load };
        self.block_on(async {
            let warm_up = drive(warm_up, 0, &op).await.context("warming up")?;
            let before = server.used()?;
            let mut sample = drive(load, warm_up.done(), &op).await?;
            sample.server = server.used()? - before;
            Ok(sample)
        })
    }
}

/// Operations before a measurement, at most.
pub fn warm_up(load: Load) -> usize {
    load.operations.div_ceil(WARM_UP)
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.dir.join("scratch"));
    }
}
