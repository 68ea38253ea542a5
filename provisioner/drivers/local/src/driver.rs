//! The four calls, the same for every backend.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use driver_api::pb::{
    DeleteRequest, DeleteResponse, EnsureRequest, EnsureResponse, ListRequest, ListResponse,
    ProbeRequest,
};
use driver_api::{Phase, ProbeResponse, WorkerDriver, WorkerSpec, WorkerStatus};
use tonic::{Request, Response, Status};

use crate::backend::Backend;
use crate::record::{Worker, WorkerRecord, write_json, write_whole};
use crate::{image, keeper};

/// How long a killed worker may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A driver for workers on this host.
pub struct LocalDriver {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Box<dyn Backend>,
    state_dir: PathBuf,
    /// One call at a time per worker.
    busy: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl LocalDriver {
    /// A driver that keeps its workers below `state_dir`.
    pub fn new(backend: Box<dyn Backend>, state_dir: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { backend, state_dir, busy: Mutex::default() }) }
    }

    /// Runs a call that blocks (processes, mounts, files) on a thread that may.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Inner) -> anyhow::Result<T> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let inner = self.inner.clone();
        let joined = tokio::task::spawn_blocking(move || call(&inner)).await;
        joined
            .map_err(|e| Status::internal(format!("the call was not finished: {e}")))?
            .map(Response::new)
            .map_err(|e| Status::internal(format!("{e:#}")))
    }
}

#[tonic::async_trait]
impl WorkerDriver for LocalDriver {
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.blocking(|inner| {
            let mut answer = inner.backend.probe();
            answer.vcpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
            answer.memory_mib = memory_mib().unwrap_or(0);
            answer.disk_free_gib = disk_free_gib(&inner.state_dir).unwrap_or(0);
            Ok(answer)
        })
        .await
    }

    async fn ensure(
        &self,
        request: Request<EnsureRequest>,
    ) -> Result<Response<EnsureResponse>, Status> {
        let spec = request.into_inner().spec;
        let spec = spec.ok_or_else(|| Status::invalid_argument("spec: must be given"))?;
        driver_api::validate_spec(&spec)?;
        let known = Worker::load(&self.inner.state_dir.join(&spec.worker_id));
        if known.is_ok_and(|w| w.record.cluster_id != spec.cluster_id) {
            let message = format!("worker {} belongs to another cluster", spec.worker_id);
            return Err(Status::already_exists(message));
        }
        self.blocking(move |inner| Ok(EnsureResponse { status: Some(inner.ensure(&spec)?) })).await
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let id = request.into_inner().worker_id;
        driver_api::validate_id(&id)?;
        self.blocking(move |inner| {
            inner.delete(&id)?;
            Ok(DeleteResponse {})
        })
        .await
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        self.blocking(|inner| Ok(ListResponse { workers: inner.list()? })).await
    }
}

impl Inner {
    fn turn_of(&self, id: &str) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry(id.to_owned()).or_default().clone()
    }

    fn status(&self, worker: &Worker) -> anyhow::Result<WorkerStatus> {
        worker.status(|w| self.backend.remark(w))
    }

    fn ensure(&self, spec: &WorkerSpec) -> anyhow::Result<WorkerStatus> {
        let turn = self.turn_of(&spec.worker_id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.state_dir.join(&spec.worker_id);
        if let Ok(worker) = Worker::load(&dir) {
            let status = self.status(&worker)?;
            if status.phase() != Phase::Failed {
                return Ok(status);
            }
        }
        // Whatever an earlier attempt left is no worker.
        self.remove(&spec.worker_id)?;
        let image_dir = match image::resolve(&spec.image_dir) {
            Ok(found) => found,
            Err(e) => return Ok(failed(spec, &e)),
        };
        let worker = Worker { dir, record: WorkerRecord::new(spec, image_dir) };
        if let Err(e) = self.start(&worker, &spec.user_data) {
            tracing::warn!(worker.id = %spec.worker_id, error = format!("{e:#}"), "worker not started");
            // What was half made is removed now; the directory stays to say why.
            let _ = self.backend.clean_up(&worker);
            let _ = write_whole(&worker.path("failure.txt"), format!("{e:#}").as_bytes());
            return Ok(failed(spec, &e));
        }
        tracing::info!(worker.id = %spec.worker_id, cluster.id = %spec.cluster_id, "worker started");
        self.status(&worker)
    }

    fn start(&self, worker: &Worker, user_data: &[u8]) -> anyhow::Result<()> {
        fs::create_dir_all(&worker.dir)
            .with_context(|| format!("creating {}", worker.dir.display()))?;
        write_json(&worker.path("worker.json"), &worker.record)?;
        write_whole(&worker.path("user-data.json"), user_data)?;
        self.backend.prepare(worker)?;
        keeper::spawn(worker)
    }

    fn delete(&self, id: &str) -> anyhow::Result<()> {
        let turn = self.turn_of(id);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let existed = self.state_dir.join(id).exists();
        self.remove(id)?;
        if existed {
            tracing::info!(worker.id = %id, "worker deleted");
        }
        Ok(())
    }

    fn remove(&self, id: &str) -> anyhow::Result<()> {
        let dir = self.state_dir.join(id);
        if !dir.exists() {
            return Ok(());
        }
        // A directory without a complete record was never used to start anything.
        if let Ok(worker) = Worker::load(&dir) {
            if let Some(process) = worker.process()? {
                process.end(END_PATIENCE)?;
            }
            wait_unkept(&worker)?;
            self.backend.clean_up(&worker)?;
        }
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))
    }

    /// The status of a worker that a call may be busy with: between its record and its keeper a
    /// new worker looks as if it had not been started.
    fn listed(&self, worker: &Worker) -> anyhow::Result<WorkerStatus> {
        // Asked before the status is read, or a start that ends in between would look failed.
        let turn = self.turn_of(&worker.record.worker_id);
        let busy = matches!(turn.try_lock(), Err(TryLockError::WouldBlock));
        let mut status = self.status(worker)?;
        if busy && status.phase() == Phase::Failed {
            status.phase = Phase::Booting.into();
            status.message = "being started".into();
        }
        Ok(status)
    }

    fn list(&self) -> anyhow::Result<Vec<WorkerStatus>> {
        let entries = match fs::read_dir(&self.state_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).context("reading the state directory"),
        };
        let mut found: Vec<WorkerStatus> = entries
            .flatten()
            .filter_map(|entry| Worker::load(&entry.path()).ok())
            .map(|worker| self.listed(&worker))
            .collect::<anyhow::Result<_>>()?;
        found.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        Ok(found)
    }
}

/// The keeper ends by itself when its worker has ended.
fn wait_unkept(worker: &Worker) -> anyhow::Result<()> {
    let deadline = Instant::now() + END_PATIENCE;
    while worker.is_kept() {
        if let Some(process) = worker.process()? {
            process.end(END_PATIENCE)?;
        }
        if Instant::now() > deadline {
            bail!("the keeper of {} does not end", worker.record.worker_id);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn failed(spec: &WorkerSpec, why: &anyhow::Error) -> WorkerStatus {
    WorkerStatus {
        worker_id: spec.worker_id.clone(),
        cluster_id: spec.cluster_id.clone(),
        phase: Phase::Failed.into(),
        message: format!("{why:#}"),
        pid: 0,
        started_at_unix: 0,
    }
}

fn memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

fn disk_free_gib(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let bytes = u128::from(stat.blocks_available()) * u128::from(stat.fragment_size());
    Some((bytes >> 30) as u64)
}
