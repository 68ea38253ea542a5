//! The keeper of one worker: see the crate's description.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::backend::{Backend, Started};
use crate::console::Console;
use crate::process::Identity;
use crate::record::{ExitRecord, ProcessRecord, Worker, unix_now, write_json, write_whole};

/// How long a keeper may take to start its worker.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Starts the keeper of a prepared worker and waits until the worker's process exists.
///
/// # Errors
/// The worker could not be started; with the keeper's own words.
pub fn spawn(worker: &Worker) -> anyhow::Result<()> {
    let log = File::create(worker.path("keeper.log")).context("creating keeper.log")?;
    let mut keeper = Command::new("/proc/self/exe")
        .args(["helper", "keep"])
        .arg(&worker.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("starting the keeper")?;
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        if worker.path("process.json").exists() {
            break;
        }
        if let Some(status) = keeper.try_wait().context("waiting for the keeper")? {
            let said = std::fs::read_to_string(worker.path("keeper.log")).unwrap_or_default();
            let said = said.trim();
            bail!("{}", if said.is_empty() { status.to_string() } else { said.to_owned() });
        }
        if Instant::now() > deadline {
            // Without its keeper the half-started worker ends too, or is found by `Delete`.
            let _ = keeper.kill();
            let _ = keeper.wait();
            bail!("the worker was not started within {} s", START_PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Collected here while the driver lives, by the host's first process afterwards.
    std::thread::spawn(move || keeper.wait());
    Ok(())
}

/// The keeper's own work: start, copy the console, write down the end.
///
/// # Errors
/// The worker could not be started.
pub fn keep(backend: &dyn Backend, dir: &Path) -> anyhow::Result<()> {
    // A signal to the driver's process group or terminal must not reach the worker.
    nix::unistd::setsid().context("making a session")?;
    let worker = Worker::load(dir)?;
    let lock = File::create(worker.path("keeper.lock")).context("creating keeper.lock")?;
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        bail!("the worker already has a keeper");
    };
    let _image = crate::image::hold(&worker.record.image_dir)?;
    let Started { mut child } = backend.start(&worker)?;
    let stdout = child.stdout.take().context("the worker has no console")?;
    let mut console = Console::create(dir).context("creating console.log")?;
    let identity = match Identity::of(child.id()) {
        Ok(identity) => identity,
        Err(e) => {
            let _ = console.copy(stdout, || ());
            let status = child.wait().map(describe).unwrap_or_default();
            let said = std::fs::read_to_string(worker.path("console.log")).unwrap_or_default();
            return Err(e).with_context(|| format!("{status} {said}"));
        }
    };
    let record = ProcessRecord { identity, started_at_unix: unix_now() };
    if let Err(e) = write_json(&worker.path("process.json"), &record) {
        // Nobody would ever know of it.
        let _ = child.kill();
        let _ = child.wait();
        return Err(e);
    }
    let running = worker.path("running");
    // The worker's end closes its console; if reading fails, its end is still waited for.
    let _ = console.copy(stdout, || {
        let _ = write_whole(&running, b"");
    });
    let how = child.wait().map_or_else(|e| format!("ended: {e}"), describe);
    let exit = ExitRecord { how, at_unix: unix_now() };
    // The directory is gone when the worker was deleted.
    if worker.dir.exists() {
        let _ = write_json(&worker.path("exit.json"), &exit);
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "switched itself off".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
