//! One pod's worker: looks, decides, acts, until there is nothing to do; then waits for a ring.
//!
//! What it can do is in `acting.rs`; the ways out are in `ending.rs`: a pod that is finished, deleted or gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use component::events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, watch};

use super::backoff::Delay;
use super::plan::{self, Inputs, Plan};
use super::resizing::Resizing;
use super::start::Failed;
use super::{cleanup, words};
use crate::node::Node;
use crate::node::objects::Age;
use crate::probes::Probes;
use crate::runtime::observe::{self, State};
use crate::runtime::watch::PodId;
use crate::spec::containers;
use crate::status::{self, View};
use crate::volumes::Mounted;

/// Rounds of looking and acting in one go; more than that and other things get their turn.
const ROUNDS: usize = 32;
/// The least time between two looks that nobody rang for.
const BREATH: Duration = Duration::from_millis(100);
/// How often a container in back-off gets an event that says so.
const COMPLAINT: Duration = Duration::from_secs(10);
/// How soon something outside that failed (runtime, API server) is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What the API says about a pod.
#[derive(Clone, Debug)]
pub enum Desired {
    /// It is bound to this node; it may be on its way out (`deletionTimestamp`).
    Present(Arc<Pod>),
    /// It is not in the API (any more): stop it and remove every trace.
    Gone,
}

/// Why the kubelet ended a pod.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: &'static str,
    /// `status.message`.
    pub message: String,
}

/// When a pod with nothing to do is looked at again. A retry that is due and was not made waits
/// for something else (its back-off, say), so it does not count: it would be due for ever.
fn next_look(wake_at: Instant, retries: impl Iterator<Item = Instant>, now: Instant) -> Instant {
    let ahead = retries.filter(|at| *at > now).fold(wake_at, Instant::min);
    ahead.max(now + BREATH)
}

/// See the module documentation.
pub struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) id: PodId,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) bell: Arc<Notify>,
    pub(super) probes: Probes,
    pub(super) delays: HashMap<String, Delay>,
    /// Containers whose last start failed.
    pub(super) failures: BTreeMap<String, Failed>,
    pub(super) sandbox_delay: Delay,
    pub(super) sandbox_retry: Option<Instant>,
    /// Last words by container id; read once per container.
    messages: HashMap<String, String>,
    pub(super) volumes: Option<HashMap<String, Mounted>>,
    pub(super) refresh_at: Instant,
    /// How often in a row the volumes could not be made.
    pub(super) volume_failures: u32,
    pub(super) network_complained: bool,
    /// When the last event about a container's back-off was sent.
    complained: HashMap<String, Instant>,
    /// Everything is stopped and nothing will run again.
    pub(super) over: bool,
    pub(super) verdict: Option<Verdict>,
    /// The node has looked at the pod and taken or refused it.
    pub(super) admitted: bool,
    pub(super) resizing: Resizing,
    /// Rings when there may be more room on the node.
    pub(super) freed: watch::Receiver<()>,
}

impl Worker {
    /// A worker for the pod `id`.
    pub fn new(
        node: Arc<Node>,
        id: PodId,
        desired: watch::Receiver<Desired>,
        bell: Arc<Notify>,
    ) -> Self {
        let ring = bell.clone();
        let probes = Probes::new(node.clone(), Arc::new(move || ring.notify_one()));
        let resizing = match &*desired.borrow() {
            Desired::Present(pod) => Resizing::of(pod),
            Desired::Gone => Resizing::default(),
        };
        Self {
            freed: node.allocations.freed(),
            node,
            id,
            desired,
            bell,
            probes,
            delays: HashMap::new(),
            failures: BTreeMap::new(),
            sandbox_delay: Delay::default(),
            sandbox_retry: None,
            messages: HashMap::new(),
            volumes: None,
            refresh_at: Instant::now(),
            volume_failures: 0,
            network_complained: false,
            complained: HashMap::new(),
            over: false,
            verdict: None,
            admitted: false,
            resizing,
        }
    }

    /// Runs until the pod is gone and every trace of it removed.
    pub async fn run(mut self) {
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let wake_at = match desired {
                Desired::Gone => match self.vanish().await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(
                            pod.uid = self.id.uid,
                            pod.name = self.id.name,
                            "removing the pod: {error:#}"
                        );
                        Instant::now() + RETRY
                    }
                },
                Desired::Present(pod) if self.is_ending(&pod) => self.end(&pod).await,
                Desired::Present(pod) => {
                    let mut news = self.desired.clone();
                    // A deletion does not wait for a slow pull; the rest of a round is safe to
                    // leave at any point, since the next one looks afresh.
                    tokio::select! {
                        wake_at = self.sync(&pod) => wake_at,
                        _ = news.wait_for(|d| !matches!(d, Desired::Present(p) if p.metadata.deletion_timestamp.is_none())) => continue,
                    }
                }
            };
            let wake = tokio::time::sleep_until(wake_at.into());
            tokio::select! {
                () = self.bell.notified() => {}
                _ = self.desired.changed() => {}
                _ = self.freed.changed(), if self.resizing.is_deferred() => {}
                () = wake => {}
            }
        }
    }

    /// Brings a pod that should run closer to what it should be. Answers when to look again.
    async fn sync(&mut self, pod: &Arc<Pod>) -> Instant {
        let mut wake_at = Instant::now() + self.node.config.sync_frequency;
        for _ in 0..ROUNDS {
            let pod = &match self.allocate(&self.newest(pod)) {
                Ok(given) => given,
                Err(error) => {
                    tracing::warn!(
                        pod.name = self.id.name,
                        "writing down what the pod was given: {error}"
                    );
                    return Instant::now() + RETRY;
                }
            };
            let runtime = match observe::observe(&self.node.runtime, &self.id.uid).await {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::warn!(
                        pod.name = self.id.name,
                        "asking the runtime about the pod: {error}"
                    );
                    return Instant::now() + RETRY;
                }
            };
            self.admit(pod, &runtime);
            self.listen(pod, &runtime);
            let mut plan = self.plan(pod, &runtime);
            self.follow_resize(pod, &runtime, &mut plan);
            self.hold_back(&mut plan);
            if let Some(deadline) = self.deadline(pod) {
                wake_at = wake_at.min(deadline);
            }
            if !self.report(pod, &runtime, &plan).await {
                wake_at = wake_at.min(Instant::now() + RETRY);
            }
            if plan.finished || self.verdict.is_some() {
                self.bell.notify_one();
                self.over = true;
                return wake_at;
            }
            wake_at = plan.wake_at.map_or(wake_at, |at| wake_at.min(at));
            if plan.is_idle() {
                if self.volumes.is_none() || Instant::now() >= self.refresh_at {
                    // Adopted pods come here first; their volumes are refreshed, never remade.
                    self.set_up_volumes(pod, &runtime, Age::Recent).await;
                }
                cleanup::prune(&self.node, &runtime).await;
                let retries = self.failures.values().map(|f| f.retry_at);
                return next_look(wake_at, retries.chain([self.refresh_at]), Instant::now());
            }
            if let Some(at) = self.act(pod, &runtime, plan).await {
                return wake_at.min(at);
            }
        }
        Instant::now() + Duration::from_secs(1)
    }

    /// The newest copy of the pod: what this worker wrote itself is in it.
    pub(super) fn newest(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let newest = self.node.pods.get(&component::ObjectKey::of(&**pod));
        newest.filter(|p| containers::uid(p) == self.id.uid).unwrap_or_else(|| pod.clone())
    }

    /// Takes up probes and last words of what runs or ended.
    pub(super) fn listen(&mut self, pod: &Arc<Pod>, runtime: &observe::Pod) {
        self.probes.reconcile(pod, runtime);
        self.messages.retain(|id, _| runtime.containers.iter().any(|c| c.id == *id));
        for container in runtime.containers.iter().filter(|c| c.state == State::Exited) {
            if !self.messages.contains_key(&container.id) {
                let text = words::of(container);
                self.messages.insert(container.id.clone(), text);
            }
        }
        let started =
            |name: &String| runtime.latest(name).is_some_and(|c| c.state == State::Running);
        self.failures.retain(|name, _| !started(name));
    }

    fn plan(&self, pod: &Pod, runtime: &observe::Pod) -> Plan {
        let health = self.probes.health();
        plan::plan(Inputs {
            pod,
            runtime,
            health: &health,
            delays: &self.delays,
            told: &self.resizing.told,
            restarting: &self.resizing.restarting,
            now: Timestamp::now(),
            instant: Instant::now(),
        })
    }

    /// Takes starts out of the plan that failed a moment ago.
    fn hold_back(&self, plan: &mut Plan) {
        let now = Instant::now();
        plan.start.retain(|s| self.failures.get(&s.name).is_none_or(|f| f.retry_at <= now));
        // Containers that wait for their failed start to be repeated say why.
        for (name, failed) in &self.failures {
            plan.waiting.entry(name.clone()).or_insert_with(|| failed.waiting.clone());
        }
        if self.sandbox_retry.is_some_and(|at| at > now) {
            plan.new_sandbox = None;
            plan.wake_at = self.sandbox_retry;
        }
    }

    /// When `activeDeadlineSeconds` is over; passes the verdict when it is.
    fn deadline(&mut self, pod: &Pod) -> Option<Instant> {
        let seconds = containers::spec(pod).active_deadline_seconds?;
        let start = pod.status.as_ref()?.start_time.as_ref()?.0;
        let left = (start + SignedDuration::from_secs(seconds)).duration_since(Timestamp::now());
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Some(Instant::now() + left),
            _ => {
                let message =
                    "Pod was active on the node longer than the specified deadline".to_owned();
                self.node.event(pod, EventType::Normal, "DeadlineExceeded", message.clone());
                self.verdict = Some(Verdict { reason: "DeadlineExceeded", message });
                None
            }
        }
    }

    /// The pod's status as things are.
    pub(super) fn status(&self, pod: &Pod, runtime: &observe::Pod, plan: &Plan) -> PodStatus {
        status::build(&View {
            pod,
            runtime,
            health: &self.probes.health(),
            waiting: &plan.waiting,
            messages: &self.messages,
            runtime_name: &self.node.runtime_name,
            host_ips: &self.node.facts.ips,
            over: self.over,
            verdict: self.verdict.as_ref().map(|v| (v.reason, v.message.as_str())),
            standing: &self.resizing.standing(pod),
            now: Timestamp::now(),
        })
    }

    /// Writes the status; false when it has to be tried again.
    pub(super) async fn report(&mut self, pod: &Pod, runtime: &observe::Pod, plan: &Plan) -> bool {
        for (name, why) in plan.waiting.iter().filter(|(_, why)| why.reason == "CrashLoopBackOff") {
            self.crash_event(pod, name, why);
        }
        match self.node.writer.write(pod, &self.status(pod, runtime, plan)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(
                    pod.name = self.id.name,
                    pod.namespace = self.id.namespace,
                    "writing the pod's status: {error}"
                );
                false
            }
        }
    }

    fn crash_event(&mut self, pod: &Pod, name: &str, why: &plan::Waiting) {
        let Some((kind, _)) = containers::find(pod, name) else { return };
        if self.complained.get(name).is_some_and(|at| at.elapsed() < COMPLAINT) {
            return;
        }
        self.complained.insert(name.to_owned(), Instant::now());
        tracing::debug!(pod.name = self.id.name, "{}", why.message);
        let id = format!("{}_{}({})", self.id.name, self.id.namespace, self.id.uid);
        let message = format!("Back-off restarting failed container {name} in pod {id}");
        self.node.container_event(pod, (kind, name), EventType::Warning, "BackOff", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_that_is_overdue_does_not_make_the_worker_spin() {
        let now = Instant::now() + Duration::from_secs(100);
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let past = now.checked_sub(Duration::from_secs(5)).unwrap();
        assert_eq!(next_look(at(60), [past, at(7)].into_iter(), now), at(7));
        assert_eq!(next_look(at(60), [past].into_iter(), now), at(60));
        assert_eq!(next_look(past, [].into_iter(), now), now + BREATH);
    }
}
