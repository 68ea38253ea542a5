//! The task that owns all state: applies changes, decides, and hands results to writers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component::metrics as record;
use component::selector::Labels;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::cluster::Cluster;
use crate::cycle::{self, NoFit};
use crate::metrics;
use crate::plugins::Events;
use crate::pod::PodInfo;
use crate::preemption::{self, Candidate};
use crate::queue::{Queue, Taken};
use crate::room;

mod watch;
mod write;

#[cfg(test)]
mod tests;

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
    /// A PodDisruptionBudget (namespace, name) says so, or is gone.
    Budget(String, String, Option<Budget>),
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

    /// Follows what happens and decides nothing, until elected: a standby knows all when it takes
    /// over, and messages do not pile up.
    pub async fn follow(mut self, elected: CancellationToken) -> Self {
        loop {
            tokio::select! {
                () = elected.cancelled() => return self,
                message = self.messages.recv() => match message {
                    Some(message) => self.apply(message, Instant::now()),
                    None => return self,
                },
            }
        }
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
                let events = watch::node_events(old.as_deref(), &new);
                let name = new.metadata.name.as_deref().unwrap_or_default();
                if events.0 != 0 {
                    self.node_changed(name, events, now);
                }
            }
            Message::NodeGone(name) => {
                self.cluster.remove_node(&name);
                self.withdraw_nominations(&name, i32::MAX, now);
                // Where it stood in a domain, the others may be even now.
                self.queue.changed(Events::POD_REMOVED, now);
            }
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
            Message::Budget(namespace, name, budget) => {
                let budgets = self.cluster.budgets.entry(namespace).or_default();
                match budget {
                    Some(budget) => budgets.insert(name, budget),
                    None => budgets.remove(&name),
                };
            }
            Message::Workload(uid, Some(selector)) => {
                self.cluster.workloads.insert(uid, selector);
            }
            Message::Workload(uid, None) => {
                self.cluster.workloads.remove(&uid);
            }
            Message::BindFailed(uid) => {
                // Unless the watch has said meanwhile that it is bound after all.
                if self.cluster.pod(&uid).is_some_and(|pod| pod.node().is_none()) {
                    let home = self.cluster.remove_pod(&uid);
                    self.queue.retry(&uid, now);
                    self.room_on(home, now);
                }
            }
            Message::EvictFailed(uid) => {
                let home = self.cluster.drop_nomination(&uid);
                self.queue.reconsider(&uid, now);
                self.room_on(home, now);
            }
        }
    }

    fn pod(&mut self, pod: PodInfo, now: Instant) {
        if pod.is_finished() {
            return self.pod_gone(&pod.uid.clone(), now);
        }
        let pod = Arc::new(pod);
        if let Some(node) = pod.node().map(str::to_owned) {
            let held = self.cluster.pod(&pod.uid);
            let asks_else = held.is_some_and(|held| held.requests != pod.requests);
            let news =
                held.is_none_or(|held| held.labels != pod.labels || held.deleting != pod.deleting);
            self.queue.remove(&pod.uid);
            let nominated = self.cluster.drop_nomination(&pod.uid);
            self.cluster.put_pod(pod, &node);
            self.room_on(nominated.filter(|nominated| *nominated != node), now);
            if news {
                self.queue.changed(Events::POD_ADDED, now);
            }
            if asks_else {
                self.room_on(Some(node), now);
            }
        } else if self.cluster.has_pod(&pod.uid) {
            // Assumed: the API server does not know of the binding yet.
        } else if pod.deleting {
            self.pod_gone(&pod.uid, now);
        } else if pod.spec().scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME {
            self.follow_nomination(&pod, now);
            self.queue.put(pod, now);
        }
    }

    fn pod_gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        let nominated = self.cluster.drop_nomination(uid);
        let home = self.cluster.remove_pod(uid);
        self.room_on(home.or(nominated), now);
    }

    /// A pod that was counted or expected on this node is not any more.
    fn room_on(&mut self, node: Option<String>, now: Instant) {
        let Some(node) = node else { return };
        self.judge_room(&node, now);
        self.queue.changed(Events::POD_REMOVED, now);
    }

    fn judge_room(&mut self, node: &str, now: Instant) {
        let woken = room::judge(self.queue.waiting_for_room(), &self.cluster, node, now);
        self.queue.wake(&woken, now);
    }

    fn node_changed(&mut self, name: &str, events: Events, now: Instant) {
        self.judge_room(name, now);
        let nominees: Vec<_> = self.cluster.nominees(name).map(|pod| pod.uid.clone()).collect();
        nominees.iter().for_each(|uid| self.queue.reconsider(uid, now));
        self.queue.changed(events, now);
    }

    /// Pods less important than this are no longer expected on the node, and look again.
    fn withdraw_nominations(&mut self, node: &str, priority: i32, now: Instant) {
        let lesser = self.cluster.nominees(node).filter(|pod| pod.priority < priority);
        let lesser: Vec<_> = lesser.map(|pod| pod.uid.clone()).collect();
        for uid in lesser {
            self.cluster.drop_nomination(&uid);
            self.queue.reconsider(&uid, now);
        }
    }

    /// Takes in a nomination from the API: of an earlier scheduler, or of somebody else. What this
    /// one has decided itself is known, and may be newer.
    fn follow_nomination(&mut self, pod: &Arc<PodInfo>, now: Instant) {
        let before = self.queue.get(&pod.uid).and_then(|held| held.nominated());
        if before == pod.nominated() {
            return;
        }
        match (pod.nominated(), self.cluster.nominated_node(&pod.uid)) {
            (Some(node), None) => {
                self.cluster.nominate(pod.clone(), node, Vec::new(), now);
            }
            (None, known) if known.is_some() && known == before => {
                let node = self.cluster.drop_nomination(&pod.uid);
                self.room_on(node, now);
            }
            _ => {}
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
                let nominated = self.cluster.drop_nomination(&pod.uid);
                self.cluster.put_pod(pod.clone(), &node);
                self.queue.changed(Events::POD_ADDED, now);
                self.room_on(nominated.filter(|nominated| *nominated != node), now);
                self.writer.bind(taken.clone(), node);
            }
            Err(failure) => {
                record::count(metrics::ATTEMPTS, &[("result", "unschedulable")]);
                let mut message = failure.message();
                let victims = self.make_room(pod, &failure, &mut message, now);
                self.queue.wait_for(&pod.uid, failure.helped_by, now);
                let nominated = self.cluster.nominated_node(&pod.uid).map(str::to_owned);
                self.writer.report(pod.clone(), message, nominated, victims);
            }
        }
    }

    /// Chooses pods that have to leave for this one, if that helps, and completes the message.
    fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        failure: &NoFit,
        message: &mut String,
        now: Instant,
    ) -> Vec<Arc<PodInfo>> {
        let nominated = self.cluster.nominated_node(&pod.uid);
        let rejection = nominated.and_then(|node| failure.rejections.get(node));
        let is_hopeful = rejection.is_none_or(|rejection| rejection.curable);
        if is_hopeful && self.cluster.is_making_room(pod, now) {
            message.push_str(preemption::MAKING_ROOM);
            self.queue.forgive(&pod.uid);
            return Vec::new();
        }
        if failure.nodes == 0 {
            return Vec::new();
        }
        match preemption::preempt(pod, &mut self.cluster, failure, self.turn) {
            Ok(Candidate { node, victims, .. }) => {
                record::count(metrics::VICTIMS, &[]);
                self.withdraw_nominations(&node, pod.priority, now);
                let uids = victims.iter().map(|victim| victim.uid.clone()).collect();
                let before = self.cluster.nominate(pod.clone(), &node, uids, now);
                self.room_on(before.filter(|before| *before != node), now);
                victims
            }
            Err(reasons) => {
                message.push_str(&preemption::message(failure.nodes, &reasons));
                let before = self.cluster.drop_nomination(&pod.uid);
                self.room_on(before, now);
                Vec::new()
            }
        }
    }
}
