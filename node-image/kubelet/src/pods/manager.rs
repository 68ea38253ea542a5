//! Gives every pod its worker, and finds what nobody claims.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use component::Change;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::worker::{Desired, Worker};
use crate::node::Node;
use crate::runtime::watch::{PodId, World};
use crate::spec::containers;
use crate::volumes;

/// How often directories of forgotten pods are looked for.
const SWEEP: Duration = Duration::from_secs(60);

struct Handle {
    desired: watch::Sender<Desired>,
    bell: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

/// See the module documentation.
pub struct Manager {
    node: Arc<Node>,
    workers: Mutex<HashMap<String, Handle>>,
}

fn id_of(pod: &Pod) -> PodId {
    PodId {
        uid: containers::uid(pod).to_owned(),
        namespace: containers::namespace(pod).to_owned(),
        name: containers::name(pod).to_owned(),
    }
}

impl Manager {
    /// A manager without workers.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self { node, workers: Mutex::default() })
    }

    /// Tells the pod's worker what the API says, making one if there is none.
    fn tell(&self, id: PodId, desired: Desired) {
        let mut workers = self.workers.lock().expect("no holder panics");
        workers.retain(|_, handle| !handle.task.is_finished());
        if let Some(handle) = workers.get(&id.uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let (sender, receiver) = watch::channel(desired);
        let bell = Arc::new(Notify::new());
        let uid = id.uid.clone();
        let worker = Worker::new(self.node.clone(), id, receiver, bell.clone());
        let task = tokio::spawn(worker.run());
        workers.insert(uid, Handle { desired: sender, bell, task });
    }

    /// Takes in a change of the API's pods.
    pub fn on_change(&self, change: &Change<'_, Pod>) {
        if let Some(old) = change.old
            && change.new.is_none_or(|new| containers::uid(new) != containers::uid(old))
        {
            self.tell(id_of(old), Desired::Gone);
        }
        if let Some(new) = change.new {
            self.tell(id_of(new), Desired::Present(new.clone()));
        }
    }

    /// Ends all workers. What they had started keeps running.
    pub fn stop(&self) {
        for (_, handle) in self.workers.lock().expect("no holder panics").drain() {
            handle.task.abort();
        }
    }

    /// Wakes the worker of a pod.
    pub fn ring(&self, uid: &str) {
        if let Some(handle) = self.workers.lock().expect("no holder panics").get(uid) {
            handle.bell.notify_one();
        }
    }

    /// Gives pods that run but are not in the API to workers that remove them. Only once the
    /// API's pods are known: before that nothing is an orphan.
    pub fn adopt_orphans(&self, world: &World) {
        if !self.node.pods.is_synced() {
            return;
        }
        let known = self.known();
        for id in world.keys().filter(|id| !known.contains(&id.uid)) {
            tracing::info!(
                pod.name = id.name,
                pod.namespace = id.namespace,
                pod.uid = id.uid,
                "found a pod that the API does not have"
            );
            self.tell(id.clone(), Desired::Gone);
        }
    }

    /// Uids of pods in the API or with a worker.
    fn known(&self) -> HashSet<String> {
        let api = self.node.pods.list().into_iter().map(|p| containers::uid(&p).to_owned());
        let workers = self.workers.lock().expect("no holder panics");
        api.chain(workers.iter().filter(|(_, h)| !h.task.is_finished()).map(|(uid, _)| uid.clone()))
            .collect()
    }

    /// Removes directories of pods that nobody knows, for ever and then again.
    pub async fn sweep(self: Arc<Self>, stop: CancellationToken) {
        self.node.pods.wait_synced().await;
        loop {
            tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(SWEEP) => {} }
            let Ok(world) = crate::runtime::watch::list(&self.node.runtime).await else { continue };
            let known = self.known();
            let running: HashSet<_> = world.into_keys().map(|id| id.uid).collect();
            let forgotten = |uid: &String| !known.contains(uid) && !running.contains(uid);
            for (uid, dir) in
                directories(&self.node.config.root_dir.join("pods"), |name| Some(name.to_owned()))
            {
                if forgotten(&uid) {
                    tracing::info!(
                        pod.uid = uid,
                        "removing the directory {} of a forgotten pod",
                        dir.display()
                    );
                    if let Err(error) = volumes::tear_down(&self.node.config.root_dir, &uid) {
                        tracing::warn!(pod.uid = uid, "removing the pod's directory: {error}");
                    }
                }
            }
            let uid_of_log = |name: &str| name.rsplit_once('_').map(|(_, uid)| uid.to_owned());
            for (uid, dir) in directories(&self.node.config.log_dir, uid_of_log) {
                if forgotten(&uid)
                    && let Err(error) = std::fs::remove_dir_all(&dir)
                {
                    tracing::warn!(pod.uid = uid, "removing {}: {error}", dir.display());
                }
            }
        }
    }
}

fn directories(
    at: &std::path::Path,
    uid: impl Fn(&str) -> Option<String>,
) -> Vec<(String, std::path::PathBuf)> {
    let entries = std::fs::read_dir(at).into_iter().flatten().flatten();
    entries.filter_map(|e| Some((uid(e.file_name().to_str()?)?, e.path()))).collect()
}
