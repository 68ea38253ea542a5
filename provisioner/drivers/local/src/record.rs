//! A worker's directory: what is written there, by whom, and what it says together.
//!
//! | file | written by | means |
//! |-|-|-|
//! | `worker.json`, `user-data.json` | driver | what was asked for |
//! | `keeper.lock` | keeper | locked while the keeper lives |
//! | `process.json` | keeper | the worker's process was started |
//! | `running` | keeper | the console said that all services were started |
//! | `exit.json` | keeper | how and when it ended |
//! | `failure.txt` | driver | why it could not be started |

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use driver_api::{Phase, WorkerSpec, WorkerStatus};
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::Identity;

/// What was asked for, without the user-data, which is secret and has a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct WorkerRecord {
    pub worker_id: String,
    pub cluster_id: String,
    pub netns: String,
    pub bridge: String,
    pub mac: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// The image directory itself, not a link to it: a worker keeps its image.
    pub image_dir: PathBuf,
}

impl WorkerRecord {
    /// The record of a specification whose image directory was resolved.
    pub fn new(spec: &WorkerSpec, image_dir: PathBuf) -> Self {
        Self {
            worker_id: spec.worker_id.clone(),
            cluster_id: spec.cluster_id.clone(),
            netns: spec.netns.clone(),
            bridge: spec.bridge.clone(),
            mac: spec.mac.to_ascii_lowercase(),
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            disk_gib: spec.disk_gib,
            image_dir,
        }
    }
}

/// `process.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub identity: Identity,
    pub started_at_unix: i64,
}

/// `exit.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub how: String,
    pub at_unix: i64,
}

/// One worker: its directory and what was asked for.
#[derive(Debug, Clone)]
pub struct Worker {
    /// `<state dir>/<worker id>`.
    pub dir: PathBuf,
    /// What was asked for.
    pub record: WorkerRecord,
}

impl Worker {
    /// The worker of this directory.
    ///
    /// # Errors
    /// It holds none, or not completely.
    pub fn load(dir: &Path) -> anyhow::Result<Self> {
        let record = read_json(&dir.join("worker.json"))?
            .with_context(|| format!("{} holds no worker", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), record })
    }

    /// A file or directory of this worker.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The process, if one was started.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn process(&self) -> anyhow::Result<Option<Identity>> {
        Ok(read_json::<ProcessRecord>(&self.path("process.json"))?.map(|p| p.identity))
    }

    /// Whether its keeper lives.
    pub(crate) fn is_kept(&self) -> bool {
        let Ok(file) = File::open(self.path("keeper.lock")) else { return false };
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
    }

    /// What is true now. `remark` is asked about a worker that runs.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn status(
        &self,
        remark: impl FnOnce(&Self) -> Option<String>,
    ) -> anyhow::Result<WorkerStatus> {
        let process = read_json::<ProcessRecord>(&self.path("process.json"))?;
        let (phase, message) = match &process {
            Some(p) if p.identity.alive() || self.is_ending() => {
                let said = remark(self).or_else(|| crate::console::last_step(&self.dir));
                if self.path("running").exists() {
                    (Phase::Running, said.unwrap_or_else(|| "running".into()))
                } else {
                    (Phase::Booting, said.unwrap_or_else(|| "booting".into()))
                }
            }
            Some(_) => (Phase::Exited, self.exit_message()?),
            None if self.is_kept() => (Phase::Booting, "being started".into()),
            None => {
                let why = fs::read_to_string(self.path("failure.txt")).unwrap_or_default();
                let why = if why.is_empty() { "was not started".to_owned() } else { why };
                (Phase::Failed, why)
            }
        };
        let alive = matches!(phase, Phase::Booting | Phase::Running);
        Ok(WorkerStatus {
            worker_id: self.record.worker_id.clone(),
            cluster_id: self.record.cluster_id.clone(),
            phase: phase.into(),
            message,
            pid: process.as_ref().filter(|_| alive).map_or(0, |p| p.identity.pid),
            started_at_unix: process.as_ref().map_or(0, |p| p.started_at_unix),
        })
    }

    /// The process has ended and the keeper is about to write down how.
    fn is_ending(&self) -> bool {
        self.is_kept() && !self.path("exit.json").exists()
    }

    fn exit_message(&self) -> anyhow::Result<String> {
        let exit = read_json::<ExitRecord>(&self.path("exit.json"))?;
        // The keeper may have ended together with the worker, for example with the machine.
        let how = exit.map_or_else(|| "ended; nobody saw how".into(), |e| e.how);
        Ok(match crate::console::last_step(&self.dir) {
            Some(step) => format!("{how}; the last thing it said was: {step}"),
            None => how,
        })
    }
}

/// Reads a JSON file; none if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a file for its owner only, so that readers see all of it or none.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// [`write_whole`] of a value as JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(value)?)
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_secs()).ok())
        .unwrap_or(0)
}
