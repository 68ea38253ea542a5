//! `cargo xtask down`: what `up` made goes, and nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::apt;
use crate::paths::Paths;
use crate::process::run_logged;
use crate::progress::Step;
use crate::up::agent_dir;

/// How long a running `up` may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Stops a running `up`, ends every cluster, removes the data directory.
pub fn run(paths: &Paths, data_dir: &Path, caches: bool) -> anyhow::Result<()> {
    let data = paths.resolve(data_dir);
    if data.exists() {
        if !data.join("up.lock").exists() {
            bail!("{} was not made by `cargo xtask up`: not touched", data.display());
        }
        if !apt::is_root() {
            bail!("namespaces and mounts have to go: run this as root (sudo -E)");
        }
        stop_up(&data)?;
        purge(paths, &data)?;
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        println!("Removed all clusters and {}.", data.display());
    } else {
        println!("Nothing to remove: {} does not exist.", data.display());
    }
    if caches && paths.cache.exists() {
        fs::remove_dir_all(&paths.cache)
            .with_context(|| format!("cannot remove {}", paths.cache.display()))?;
        println!("Removed {}.", paths.cache.display());
    }
    Ok(())
}

/// Ends the `up` that holds the data directory, if there is one.
fn stop_up(data: &Path) -> anyhow::Result<()> {
    let lock = fs::File::open(data.join("up.lock")).context("cannot open the lock file")?;
    if lock.try_lock().is_ok() {
        return Ok(());
    }
    let text = fs::read_to_string(data.join("up.lock")).context("cannot read the lock file")?;
    let pid: i32 = text.trim().parse().context("the lock file names no process")?;
    let step = Step::start(format!("Stopping process {pid}"));
    terminate(pid);
    let deadline = Instant::now() + STOP_WITHIN;
    while lock.try_lock().is_err() {
        if Instant::now() > deadline {
            bail!("process {pid} does not stop: end it and try again");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    step.done();
    Ok(())
}

#[allow(unsafe_code)]
fn terminate(pid: i32) {
    // SAFETY: kill() touches no memory of ours. The process holds the lock on the data directory, so
    // the id is still its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// Lets the host agent remove every process, worker, namespace, mount and cgroup that it knows of.
fn purge(paths: &Paths, data: &Path) -> anyhow::Result<()> {
    let releases = fs::read_dir(data.join("releases")).into_iter().flatten();
    let installed = releases.filter_map(Result::ok).map(|entry| entry.path().join("provisioner"));
    let Some(provisioner) = installed.chain([paths.bin("provisioner")]).find(|path| path.exists())
    else {
        return Ok(());
    };
    let agent = agent_dir(data);
    if !agent.join("clusters").exists() {
        return Ok(());
    }
    let step = Step::start("Removing clusters");
    let mut command = Command::new(provisioner);
    command.arg("agent").arg("--purge").arg("--data-dir").arg(agent);
    command.args(["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0"]);
    command.arg("--release-dir").arg(data).arg("--image-dir").arg(paths.cache.join("image"));
    for driver in ["sandbox", "qemu"] {
        let executable = paths.bin(&format!("marina-driver-{driver}"));
        command.arg("--driver").arg(format!("{driver}={}", executable.display()));
    }
    run_logged(&step, &mut command, &paths.cache.join("logs/purge.log"))?;
    step.done();
    Ok(())
}
