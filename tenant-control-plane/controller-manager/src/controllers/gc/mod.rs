//! Garbage collector: deletes objects whose owners are all gone, deletes dependents before a
//! foreground-deleted owner, and lets dependents go when their owner is deleted as an orphan maker.
//!
//! It watches the metadata of every kind that can be listed, watched and deleted. Before anything is
//! deleted, the object and its owners are read from the API server itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use component::WorkQueue;
use component::informer::events;
use component::workqueue;
use futures::StreamExt;
use futures::future::join_all;
use kube::api::{ApiResource, DynamicObject};
use kube::core::metadata::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Running, together};
use crate::discovery::{self, Resource};

mod collect;
mod graph;
mod served;
#[cfg(test)]
mod tests;

use graph::{Graph, Identity, Work};
use served::Served;

/// How often new and vanished kinds are looked for.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

/// The same while some group does not answer.
const PARTIAL_PERIOD: Duration = Duration::from_secs(5);

/// The same after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// How long a kind may take to be listed.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);

/// Events come and go by themselves; nobody owns anything through them.
const IGNORED: [&str; 1] = ["events"];

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let (client, watching) = (context.bulk.clone(), context.manager.bulk.clone());
    let collector = Arc::new(Collector::new(client, watching, context.shutdown.clone()));
    let (finder, worker) = (collector.clone(), collector.clone());
    let workers = context.config.workers.gc;
    let shutdown = context.shutdown.clone();
    Ok(Some(together(vec![
        Box::pin(async move {
            loop {
                // The first answer must not take half a minute because of a restart.
                let pause = finder.follow_discovery().await;
                tokio::select! {
                    () = finder.shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }),
        Box::pin(async move {
            let mut synced = collector.synced.subscribe();
            // Until every kind has been listed, an unknown owner proves nothing.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = synced.wait_for(|done| *done) => {}
            }
            tracing::info!("the garbage collector knows all kinds");
            let queue = collector.queue.clone();
            workqueue::run_workers("garbage-collector", queue, workers, shutdown, move |work| {
                let collector = worker.clone();
                async move { collector.handle(work).await }
            })
            .await;
        }),
    ])))
}

struct Monitor {
    stop: CancellationToken,
    listed: Arc<watch::Sender<bool>>,
}

struct Collector {
    client: Client,
    /// For the watches, on a connection of their own.
    watching: Client,
    graph: Mutex<Graph>,
    queue: Arc<WorkQueue<Work>>,
    served: Served,
    monitors: Mutex<HashMap<Resource, Monitor>>,
    synced: watch::Sender<bool>,
    shutdown: CancellationToken,
}

impl Collector {
    fn new(client: Client, watching: Client, shutdown: CancellationToken) -> Self {
        Self {
            client,
            watching,
            graph: Mutex::new(Graph::default()),
            queue: Arc::new(WorkQueue::new()),
            served: Served::default(),
            monitors: Mutex::new(HashMap::new()),
            synced: watch::Sender::new(false),
            shutdown,
        }
    }

    fn graph(&self) -> std::sync::MutexGuard<'_, Graph> {
        self.graph.lock().expect("no code panics while it holds this lock")
    }

    fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    /// Starts watching kinds that are new, and stops watching those that are gone. Returns when to
    /// look again.
    async fn follow_discovery(self: &Arc<Self>) -> Duration {
        let mut found = match discovery::discover(&self.client).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("the garbage collector could not read discovery: {error:#}");
                return RETRY;
            }
        };
        // A group that does not answer just now keeps its kinds and their watches.
        found.keep_unanswered(&self.served.resources());
        let next = if found.failed.is_empty() { DISCOVERY_PERIOD } else { PARTIAL_PERIOD };
        let wanted: HashSet<_> = found
            .resources
            .iter()
            .filter(|r| {
                r.can(&["list", "watch", "delete"]) && !IGNORED.contains(&r.plural.as_str())
            })
            .cloned()
            .collect();
        self.enqueue(self.served.replace(found.resources));
        let mut waiting = Vec::new();
        {
            let mut monitors =
                self.monitors.lock().expect("no code panics while it holds this lock");
            monitors.retain(|resource, monitor| {
                let keep = wanted.contains(resource);
                if !keep {
                    monitor.stop.cancel();
                }
                keep
            });
            for resource in wanted {
                if let std::collections::hash_map::Entry::Vacant(slot) = monitors.entry(resource) {
                    let monitor = self.watch(slot.key().clone());
                    slot.insert(monitor);
                }
            }
            waiting.extend(monitors.values().map(|monitor| monitor.listed.subscribe()));
        }
        let all = join_all(
            waiting.iter_mut().map(|listed| async { listed.wait_for(|done| *done).await.is_ok() }),
        );
        tokio::select! {
            () = self.shutdown.cancelled() => return next,
            // A kind that cannot be listed must not hold up all the others.
            () = tokio::time::sleep(LIST_TIMEOUT) => {}
            _ = all => {}
        }
        self.synced.send_replace(true);
        next
    }

    fn watch(self: &Arc<Self>, resource: Resource) -> Monitor {
        let stop = self.shutdown.child_token();
        let listed = Arc::new(watch::Sender::new(false));
        let (this, stopped, done) = (self.clone(), stop.clone(), listed.clone());
        tokio::spawn(async move {
            let mut seen = HashSet::new();
            tokio::select! {
                () = stopped.cancelled() => {}
                () = this.observe_all(&resource, &done, &mut seen) => {}
            }
            if !this.shutdown.is_cancelled() {
                this.doubt(seen);
            }
        });
        Monitor { stop, listed }
    }

    /// Nobody watches these objects any more. They may be gone with their kind, or be served in
    /// another version: each is asked about as soon as its kind is known.
    fn doubt(&self, seen: HashSet<String>) {
        for uid in seen {
            let work = self.graph().doubt(&uid);
            self.enqueue(work);
        }
    }

    async fn observe_all(
        &self,
        resource: &Resource,
        done: &watch::Sender<bool>,
        seen: &mut HashSet<String>,
    ) {
        let (group, version) =
            resource.api_version.split_once('/').unwrap_or(("", &resource.api_version));
        let kind = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
            plural: resource.plural.clone(),
        };
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.watching.clone(), &kind);
        let mut events = std::pin::pin!(events(api, watcher::Config::default()));
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => {
                    listed.extend(object.metadata.uid.clone());
                    self.put(resource, &object);
                }
                Event::InitDone => {
                    for uid in seen.difference(&listed) {
                        let work = self.graph().remove(uid);
                        self.enqueue(work);
                    }
                    *seen = std::mem::take(&mut listed);
                    done.send_replace(true);
                }
                Event::Apply(object) => {
                    seen.extend(object.metadata.uid.clone());
                    self.put(resource, &object);
                }
                Event::Delete(object) => {
                    if let Some(uid) = &object.metadata.uid {
                        seen.remove(uid);
                        let work = self.graph().remove(uid);
                        self.enqueue(work);
                    }
                }
            }
        }
    }

    fn put(&self, resource: &Resource, object: &PartialObjectMeta<DynamicObject>) {
        let identity = Identity {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let work = self.graph().observe(identity, &object.metadata);
        self.enqueue(work);
    }
}
