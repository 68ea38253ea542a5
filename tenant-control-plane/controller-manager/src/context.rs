//! What every controller is given.

use std::future::Future;
use std::sync::Arc;

use component::informer::Informers;
use component::workqueue::{self, Requeue};
use component::{Informer, Object, ObjectKey, Recorder, WorkQueue};
use futures::future::BoxFuture;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::Identity;

/// The running part of a controller. It ends on shutdown.
pub type Running = BoxFuture<'static, ()>;

/// What one controller is given. All but the first two fields is shared by all of the process.
#[derive(Clone)]
pub struct Context {
    /// The API, as this controller: for writes, and for reads that must not come from a cache.
    pub client: Client,
    /// The same over a connection of its own, for bulk deletion.
    pub bulk: Client,
    /// The API as the manager itself, which may list and watch everything: for a cache that is not
    /// in `informers`.
    pub manager: Identity,
    /// One cache per kind.
    pub informers: Arc<Informers>,
    /// Configuration.
    pub config: Arc<Config>,
    /// Fires when the process must stop.
    pub shutdown: CancellationToken,
}

impl Context {
    /// The cache of a kind.
    pub fn informer<K: Object>(&self) -> Arc<Informer<K>> {
        self.informers.of::<K>()
    }

    /// An event recorder that signs as `controller`.
    pub fn recorder(&self, controller: &str) -> Recorder {
        Recorder::new(self.client.clone(), controller, None)
    }

    /// Workers that hand each key of `queue` to `handle`.
    pub fn work<F, Fut>(
        &self,
        name: &'static str,
        queue: Arc<WorkQueue<ObjectKey>>,
        workers: usize,
        handle: F,
    ) -> Running
    where
        F: Fn(ObjectKey) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<Requeue>> + Send + 'static,
    {
        Box::pin(workqueue::run_workers(name, queue, workers, self.shutdown.clone(), handle))
    }

    /// Calls `tick` now and then every `period`, until shutdown.
    pub fn every<F, Fut>(&self, period: std::time::Duration, tick: F) -> Running
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        Box::pin(async move {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = timer.tick() => tick().await,
                }
            }
        })
    }
}

/// Puts the key of every changed object of a kind into a queue.
pub fn enqueue_changes<K: Object>(informer: &Informer<K>, queue: &Arc<WorkQueue<ObjectKey>>) {
    let queue = queue.clone();
    informer.on_change(move |change| queue.add(ObjectKey::of(change.latest().as_ref())));
}

/// Runs several parts of one controller side by side.
pub fn together(parts: Vec<Running>) -> Running {
    Box::pin(async move {
        futures::future::join_all(parts).await;
    })
}
