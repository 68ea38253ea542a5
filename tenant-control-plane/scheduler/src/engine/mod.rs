//! The task that owns all state: applies changes, decides, and hands results to writers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component::metrics as record;
use component::selector::Labels;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::cycle;
use crate::metrics;
use crate::plugins::Events;
use crate::pod::PodInfo;
use crate::preemption;
use crate::queue::{Queue, Taken};

mod watch;
mod write;

pub use watch::subscribe;
pub use write::Writer;

/// The profile that this scheduler serves.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// What the engine is told.
#[derive(Debug)]
pub enum Message {
    /// A pod came or changed.
    Pod(Arc<Pod>),
    /// A pod is gone.
    PodGone(Arc<Pod>),
    /// A node came or changed.
    Node {
        /// Before.
        old: Option<Arc<Node>>,
        /// Now.
        new: Arc<Node>,
    },
    /// A node is gone.
    NodeGone(String),
    /// A namespace has these labels, or is gone.
    Namespace(String, Option<Labels>),
    /// A Service (namespace, name) selects by these labels, or not at all any more.
    Service(String, String, Option<Labels>),
    /// A workload (by uid) selects so, or is gone.
    Workload(String, Option<LabelSelector>),
    /// A binding was refused or could not be sent.
    BindFailed(String),
    /// A pod that has to leave for this one (uid) could not be evicted.
    EvictFailed(String),
}

/// Sends messages to the engine.
pub type Sender = mpsc::UnboundedSender<Message>;

/// See the module documentation.
pub struct Engine {
    cluster: Cluster,
    queue: Queue,
    messages: mpsc::UnboundedReceiver<Message>,
    writer: Writer,
    turn: usize,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(messages: mpsc::UnboundedReceiver<Message>, writer: Writer) -> Self {
        Self { cluster: Cluster::default(), queue: Queue::default(), messages, writer, turn: 0 }
    }

    /// Schedules until shutdown. Everything sent before the first call is applied before the first
    /// decision.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            while let Ok(message) = self.messages.try_recv() {
                self.apply(message, Instant::now());
            }
            if shutdown.is_cancelled() {
                return;
            }
            let now = Instant::now();
            if let Some(taken) = self.queue.take(now) {
                self.schedule(&taken, now);
                // Lets the writers and watchers run between decisions.
                tokio::task::yield_now().await;
                continue;
            }
            self.gauge();
            let idle = Duration::from_secs(60);
            let pause =
                self.queue.next_deadline().map_or(idle, |at| at.saturating_duration_since(now));
            tokio::select! {
                () = shutdown.cancelled() => return,
                message = self.messages.recv() => match message {
                    Some(message) => self.apply(message, Instant::now()),
                    None => return,
                },
                () = tokio::time::sleep(pause.clamp(Duration::from_millis(1), idle)) => {}
            }
        }
    }

    fn gauge(&self) {
        let (active, backoff, unschedulable) = self.queue.sizes();
        for (name, size) in
            [("active", active), ("backoff", backoff), ("unschedulable", unschedulable)]
        {
            record::gauge(metrics::PENDING, &[("queue", name)], size as f64);
        }
    }

    fn apply(&mut self, message: Message, now: Instant) {
        match message {
            Message::Pod(pod) => self.pod(PodInfo::new(pod), now),
            Message::PodGone(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                self.pod_gone(&uid, now);
            }
            Message::Node { old, new } => {
                self.cluster.put_node(&new);
                self.queue.changed(watch::node_events(old.as_deref(), &new), now);
            }
            Message::NodeGone(name) => self.cluster.remove_node(&name),
            Message::Namespace(name, Some(labels)) => {
                self.cluster.namespaces.insert(name, labels);
            }
            Message::Namespace(name, None) => {
                self.cluster.namespaces.remove(&name);
            }
            Message::Service(namespace, name, selector) => {
                let services = self.cluster.services.entry(namespace).or_default();
                match selector {
                    Some(selector) => services.insert(name, selector),
                    None => services.remove(&name),
                };
            }
            Message::Workload(uid, Some(selector)) => {
                self.cluster.workloads.insert(uid, selector);
            }
            Message::Workload(uid, None) => {
                self.cluster.workloads.remove(&uid);
            }
            Message::BindFailed(uid) => {
                self.cluster.remove_pod(&uid);
                self.queue.retry(&uid, now);
                self.queue.changed(Events::POD_REMOVED, now);
            }
            Message::EvictFailed(uid) => {
                self.cluster.drop_nomination(&uid);
                self.queue.reconsider(&uid, now);
            }
        }
    }

    fn pod(&mut self, pod: PodInfo, now: Instant) {
        if pod.is_finished() {
            return self.pod_gone(&pod.uid.clone(), now);
        }
        let pod = Arc::new(pod);
        if let Some(node) = pod.node().map(str::to_owned) {
            let news = !self.cluster.has_pod(&pod.uid) || pod.deleting;
            self.queue.remove(&pod.uid);
            self.cluster.put_pod(pod, &node);
            if news {
                self.queue.changed(Events::POD_ADDED, now);
            }
        } else if self.cluster.has_pod(&pod.uid) {
            // Assumed: the API server does not know of the binding yet.
        } else if pod.deleting {
            self.queue.remove(&pod.uid);
            self.cluster.drop_nomination(&pod.uid);
        } else if pod.spec().scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME {
            if let Some(node) = pod.nominated().map(str::to_owned)
                && self.cluster.nominated_node(&pod.uid) != Some(&node)
            {
                self.cluster.nominate(pod.clone(), &node, Vec::new(), now);
            }
            self.queue.put(pod, now);
        }
    }

    fn pod_gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        if self.cluster.remove_pod(uid) {
            self.queue.changed(Events::POD_REMOVED, now);
        }
    }

    fn schedule(&mut self, taken: &Taken, now: Instant) {
        let pod = &taken.pod;
        self.turn = self.turn.wrapping_add(1);
        let decision = cycle::schedule(pod, &self.cluster, self.turn);
        record::observe(metrics::DECISION, &[], now.elapsed());
        match decision {
            Ok(node) => {
                record::count(metrics::ATTEMPTS, &[("result", "scheduled")]);
                self.cluster.put_pod(pod.clone(), &node);
                self.writer.bind(taken.clone(), node);
            }
            Err(failure) => {
                record::count(metrics::ATTEMPTS, &[("result", "unschedulable")]);
                let mut message = failure.message();
                let mut nominated = None;
                if self.cluster.is_making_room(pod, now) {
                    message.push_str(preemption::MAKING_ROOM);
                    self.queue.forgive(&pod.uid);
                } else if failure.nodes > 0 {
                    match preemption::preempt(pod, &self.cluster, &failure) {
                        Ok(choice) => {
                            record::count(metrics::VICTIMS, &[]);
                            let victims = choice.victims.iter().map(|v| v.uid.clone()).collect();
                            self.cluster.nominate(pod.clone(), &choice.node, victims, now);
                            nominated = Some(choice);
                        }
                        Err(reasons) => {
                            message.push_str(&preemption::message(failure.nodes, &reasons));
                        }
                    }
                }
                self.queue.wait_for(&pod.uid, failure.helped_by, now);
                self.writer.report(pod.clone(), message, nominated);
            }
        }
    }
}
