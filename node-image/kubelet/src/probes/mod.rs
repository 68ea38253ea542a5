//! Probes: one task per probe of a running container, and what they have found so far.
//!
//! The tasks are derived from what runs ([`Probes::reconcile`]), so a restarted kubelet takes
//! up the probes of containers that it adopts. A change of any result rings the pod.

pub mod check;
pub mod grpc;
pub mod http;
pub mod threshold;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use component::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::task::JoinHandle;

use crate::node::Node;
use crate::pods::plan::Health;
use crate::runtime::observe::{self, State};
use crate::spec::containers::{self, Kind};
use threshold::{Counter, Outcome};

/// The three probes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Holds the other two back until it succeeds; restarts the container when it gives up.
    Startup,
    /// Restarts the container when it gives up.
    Liveness,
    /// Decides whether the pod serves.
    Readiness,
}

impl Purpose {
    fn title(self) -> &'static str {
        match self {
            Purpose::Startup => "Startup",
            Purpose::Liveness => "Liveness",
            Purpose::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Purpose::Startup => container.startup_probe.as_ref(),
            Purpose::Liveness => container.liveness_probe.as_ref(),
            Purpose::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The probes of one pod. Dropping it ends their tasks.
pub struct Probes {
    node: Arc<Node>,
    health: Arc<Mutex<Health>>,
    ring: Arc<dyn Fn() + Send + Sync>,
    tasks: HashMap<String, Vec<JoinHandle<()>>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().flatten().for_each(JoinHandle::abort);
    }
}

/// What a restarted kubelet takes over: whether the API knows this very container as ready.
fn was(pod: &Pod, runtime_name: &str, container: &observe::Container) -> (bool, bool) {
    let id = format!("{runtime_name}://{}", container.id);
    let status = pod.status.as_ref();
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    let known = lists
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .find(|s| s.container_id.as_ref() == Some(&id));
    known.map_or((false, false), |s| (s.ready, s.started == Some(true)))
}

impl Probes {
    /// `ring` is called whenever a result changed.
    pub fn new(node: Arc<Node>, ring: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { node, health: Arc::default(), ring, tasks: HashMap::new() }
    }

    /// Ends all probes for good: the pod is on its way out.
    pub fn stop(&mut self) {
        self.tasks.values().flatten().for_each(JoinHandle::abort);
    }

    /// What was found so far.
    pub fn health(&self) -> Health {
        self.health.lock().expect("no holder panics").clone()
    }

    /// Starts the probes of containers that run and ends those of containers that do not.
    pub fn reconcile(&mut self, pod: &Arc<Pod>, runtime: &observe::Pod) {
        let running: HashMap<&str, &observe::Container> = runtime
            .containers
            .iter()
            .filter(|c| c.state == State::Running)
            .map(|c| (c.id.as_str(), c))
            .collect();
        self.tasks.retain(|id, tasks| {
            let keep = running.contains_key(id.as_str());
            if !keep {
                tasks.iter().for_each(JoinHandle::abort);
            }
            keep
        });
        {
            let mut health = self.health.lock().expect("no holder panics");
            health.started.retain(|id, _| running.contains_key(id.as_str()));
            health.ready.retain(|id, _| running.contains_key(id.as_str()));
            health.failed.retain(|id, _| running.contains_key(id.as_str()));
        }
        for (id, container) in running {
            if !self.tasks.contains_key(id) {
                let tasks = self.start(pod, container, runtime);
                self.tasks.insert(id.to_owned(), tasks);
            }
        }
    }

    fn start(
        &self,
        pod: &Arc<Pod>,
        container: &observe::Container,
        runtime: &observe::Pod,
    ) -> Vec<JoinHandle<()>> {
        let Some((kind, spec)) = containers::find(pod, &container.name) else { return vec![] };
        if kind == Kind::Ephemeral {
            return vec![];
        }
        let (ready, started) = was(pod, &self.node.runtime_name, container);
        {
            let mut health = self.health.lock().expect("no holder panics");
            health.started.insert(container.id.clone(), started || spec.startup_probe.is_none());
            health.ready.insert(container.id.clone(), ready || spec.readiness_probe.is_none());
        }
        let ip = runtime.sandbox().and_then(|s| s.ips.first().cloned());
        let ip = ip
            .or_else(|| self.node.facts.ips.first().cloned())
            .unwrap_or_else(|| "127.0.0.1".into());
        let purposes = [Purpose::Startup, Purpose::Liveness, Purpose::Readiness];
        purposes
            .into_iter()
            .filter_map(|purpose| Some((purpose, purpose.of(&spec)?.clone())))
            .map(|(purpose, probe)| {
                let task = Task {
                    node: self.node.clone(),
                    pod: pod.clone(),
                    spec: spec.clone().into_owned(),
                    kind,
                    id: container.id.clone(),
                    started_at: container.started_at.unwrap_or(container.created_at),
                    ip: ip.clone(),
                    purpose,
                    probe,
                    health: self.health.clone(),
                    ring: self.ring.clone(),
                };
                tokio::spawn(task.run())
            })
            .collect()
    }
}

struct Task {
    node: Arc<Node>,
    pod: Arc<Pod>,
    spec: Container,
    kind: Kind,
    id: String,
    started_at: Timestamp,
    ip: String,
    purpose: Purpose,
    probe: Probe,
    health: Arc<Mutex<Health>>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

fn seconds(value: Option<i32>, default: u64) -> u64 {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

impl Task {
    async fn run(self) {
        let period = Duration::from_secs(seconds(self.probe.period_seconds, 10));
        let delay = Duration::from_secs(seconds(self.probe.initial_delay_seconds, 0));
        let age = Duration::try_from(Timestamp::now().duration_since(self.started_at))
            .unwrap_or_default();
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let mut counter = Counter::new(
            seconds(self.probe.success_threshold, 1),
            seconds(self.probe.failure_threshold, 3),
            self.purpose != Purpose::Readiness,
        );
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let started =
                self.health.lock().expect("no holder panics").started.get(&self.id).copied();
            match (self.purpose, started.unwrap_or(true)) {
                (Purpose::Startup, true) => return,
                (Purpose::Liveness | Purpose::Readiness, false) => {
                    // Looked at often enough to begin soon after the startup probe succeeded.
                    tokio::time::sleep(period.min(Duration::from_secs(1))).await;
                    tick.reset_immediately();
                    continue;
                }
                _ => {}
            }
            let timeout = Duration::from_secs(seconds(self.probe.timeout_seconds, 1));
            let result =
                check::run(&self.node, &self.spec, &self.id, &self.ip, &self.probe, timeout).await;
            if let Err(why) = &result {
                self.complain(why);
            }
            if let Some(outcome) = counter.observe(result.is_ok())
                && self.apply(outcome)
            {
                (self.ring)();
            }
        }
    }

    fn complain(&self, why: &str) {
        let message = format!("{} probe failed: {why}", self.purpose.title());
        let at = (self.kind, self.spec.name.as_str());
        self.node.container_event(&self.pod, at, EventType::Warning, "Unhealthy", message);
    }

    /// Stores the outcome; true when it is news.
    fn apply(&self, outcome: Outcome) -> bool {
        let mut health = self.health.lock().expect("no holder panics");
        let id = self.id.clone();
        match (self.purpose, outcome) {
            (Purpose::Startup, Outcome::Success) => health.started.insert(id, true) != Some(true),
            (Purpose::Readiness, outcome) => {
                let ready = outcome == Outcome::Success;
                health.ready.insert(id, ready) != Some(ready)
            }
            (Purpose::Startup | Purpose::Liveness, Outcome::Failure) => {
                let what = self.purpose.title().to_lowercase();
                let message = format!("Container {} failed {what} probe", self.spec.name);
                health.failed.insert(id, message).is_none()
            }
            (Purpose::Liveness, Outcome::Success) => false,
        }
    }
}
