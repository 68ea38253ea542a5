//! Keeps a driver executable running. Drivers, like members, outlive the agent.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;

use crate::{
    config::AgentConfig,
    member::{log, supervisor},
    process::{self, LaunchSpec, Running},
};

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Where the files of a driver are.
#[derive(Clone, Debug)]
pub struct DriverDir {
    dir: PathBuf,
}

impl DriverDir {
    /// Below the agent's data directory.
    pub fn new(data_dir: &Path, name: &str) -> Self {
        Self { dir: data_dir.join("drivers").join(name) }
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("driver.sock")
    }

    /// Its state.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("driver.log")
    }
}

/// Runs for ever: starts the driver, adopts it, starts it again when it ends, and when its
/// executable was replaced.
pub async fn keep_running(config: Arc<AgentConfig>, name: String, program: PathBuf) {
    let dir = DriverDir::new(&config.data_dir, &name);
    let mut backoff = FIRST_BACKOFF;
    loop {
        let started = std::time::Instant::now();
        match obtain(&config, &dir, &program).await {
            Ok(running) => {
                tracing::info!(driver = name, pid = running.pid, "worker driver runs");
                let bound = async {
                    loop {
                        let _ = log::bound(&dir.log(), log::MAX_BYTES);
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                };
                tokio::select! {
                    how = running.ended() => {
                        let said = log::last_line(&dir.log());
                        tracing::warn!(driver = name, %how, said, "worker driver ended");
                    }
                    () = bound => {}
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(driver = name, error, "worker driver cannot be started");
            }
        }
        if started.elapsed() > MAX_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// Ends a driver that runs, for a host that is given up.
pub async fn end(config: &AgentConfig, name: &str) -> anyhow::Result<()> {
    if let Some(running) = process::find(&DriverDir::new(&config.data_dir, name).dir)? {
        supervisor::end(&running, false).await;
    }
    Ok(())
}

async fn obtain(config: &AgentConfig, dir: &DriverDir, program: &Path) -> anyhow::Result<Running> {
    let meta = std::fs::metadata(program)
        .with_context(|| format!("driver executable {}", program.display()))?;
    std::fs::create_dir_all(dir.state())?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let spec = LaunchSpec {
        dir: dir.dir.clone(),
        hash: format!("{}:{}:{}", program.display(), meta.len(), meta.mtime_nsec() ^ meta.mtime()),
        program: program.display().to_string(),
        args: vec![
            "--socket".to_owned(),
            dir.socket().display().to_string(),
            "--state-dir".to_owned(),
            dir.state().display().to_string(),
        ],
        env: vec![("PATH".to_owned(), path), ("HOME".to_owned(), "/root".to_owned())],
        log: dir.log(),
        cgroups: Vec::new(),
        jail: None,
    };
    if let Some(running) = process::find(&dir.dir)? {
        if running.hash == spec.hash {
            return Ok(running);
        }
        supervisor::end(&running, false).await;
    }
    Ok(process::start(&config.launcher, &spec)?)
}
