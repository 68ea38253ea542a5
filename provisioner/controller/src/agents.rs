//! Connections to the agents: one task per host, which gives and takes whole states.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, bail};
use marina_db::hosts::Host;
use provisioner_api::{HostAgentClient, MAX_MESSAGE_BYTES, pb};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const APPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// An agent reports every 3 s; after this silence it counts as away.
const SILENCE: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// What is known of one host through its agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostView {
    /// Its agent answers now.
    pub connected: bool,
    /// Why not.
    pub problem: String,
    /// Its last report.
    pub report: Option<Arc<pb::HostObserved>>,
    /// The last desired state that it acknowledged to this controller.
    pub applied: Option<Arc<pb::HostDesired>>,
}

impl HostView {
    /// True until the first attempt to reach the agent has ended, either way. That takes a few
    /// seconds at most; nothing should be concluded about the host before.
    pub fn undecided(&self) -> bool {
        !self.connected && self.problem.is_empty()
    }

    /// False only when the agent, working towards a desired state without the cluster, reports
    /// that nothing of it is there.
    pub fn may_have_cluster(&self, cluster: &str) -> bool {
        let Some((applied, report)) = self.settled() else { return true };
        applied.clusters.iter().any(|c| c.id == cluster)
            || report.clusters.iter().any(|c| c.id == cluster)
    }

    /// The same for a worker.
    pub fn may_have_worker(&self, worker: &str) -> bool {
        let Some((applied, report)) = self.settled() else { return true };
        applied.clusters.iter().any(|c| c.workers.iter().any(|w| w.id == worker))
            || report.clusters.iter().any(|c| c.workers.iter().any(|w| w.id == worker))
    }

    fn settled(&self) -> Option<(&pb::HostDesired, &pb::HostObserved)> {
        let (applied, report) = (self.applied.as_deref()?, self.report.as_deref()?);
        (report.revision >= applied.revision).then_some((applied, report))
    }
}

/// All agents.
#[derive(Debug)]
pub(crate) struct Agents {
    tls: ClientTlsConfig,
    rung: Arc<Notify>,
    tasks: BTreeMap<String, Agent>,
}

#[derive(Debug)]
struct Agent {
    url: String,
    view: Arc<Mutex<HostView>>,
    desired: watch::Sender<Option<Arc<pb::HostDesired>>>,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agents {
    /// No connections yet; `rung` is notified when a view changes.
    pub fn new(tls: ClientTlsConfig, rung: Arc<Notify>) -> Self {
        Self { tls, rung, tasks: BTreeMap::new() }
    }

    /// Connects to new hosts, and no longer to removed ones.
    pub fn converge(&mut self, hosts: &[Host]) {
        let known: BTreeSet<&str> = hosts.iter().map(|host| host.id.as_str()).collect();
        self.tasks.retain(|id, agent| {
            let host = hosts.iter().find(|host| host.id.as_str() == id);
            known.contains(id.as_str()) && host.is_some_and(|host| host.agent_url == agent.url)
        });
        for host in hosts {
            if !self.tasks.contains_key(host.id.as_str()) {
                let agent = self.connect(host);
                self.tasks.insert(host.id.to_string(), agent);
            }
        }
    }

    fn connect(&self, host: &Host) -> Agent {
        let view = Arc::new(Mutex::new(HostView::default()));
        let (desired, receiver) = watch::channel(None);
        let link = Link {
            host: host.name.clone(),
            url: host.agent_url.clone(),
            tls: self.tls.clone(),
            view: Arc::clone(&view),
            rung: Arc::clone(&self.rung),
        };
        let task = tokio::spawn(link.run(receiver));
        Agent { url: host.agent_url.clone(), view, desired, task }
    }

    /// What is known now, by host id.
    pub fn views(&self) -> BTreeMap<String, HostView> {
        self.tasks
            .iter()
            .map(|(id, agent)| {
                let view = agent.view.lock().expect("no code panics while it holds this lock");
                (id.clone(), view.clone())
            })
            .collect()
    }

    /// Gives a host its desired state, unless it has the same, whatever its revision.
    pub fn give(&self, host: &str, desired: pb::HostDesired) {
        let Some(agent) = self.tasks.get(host) else { return };
        agent.desired.send_if_modified(|old| {
            let same = old.as_ref().is_some_and(|old| old.clusters == desired.clusters);
            if !same {
                *old = Some(Arc::new(desired));
            }
            !same
        });
    }
}

/// One connection, made again whenever it breaks.
struct Link {
    host: String,
    url: String,
    tls: ClientTlsConfig,
    view: Arc<Mutex<HostView>>,
    rung: Arc<Notify>,
}

impl Link {
    async fn run(self, mut desired: watch::Receiver<Option<Arc<pb::HostDesired>>>) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let mut heard = false;
            let error = match self.session(&mut desired, &mut heard).await {
                Ok(()) => "the agent closed the connection".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if heard {
                backoff = FIRST_BACKOFF;
                tracing::warn!(host = self.host, error, "lost the agent");
            }
            self.change(|view| {
                view.connected = false;
                view.problem = error;
            });
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    fn change(&self, change: impl FnOnce(&mut HostView)) {
        change(&mut self.view.lock().expect("no code panics while it holds this lock"));
        self.rung.notify_one();
    }

    async fn session(
        &self,
        desired: &mut watch::Receiver<Option<Arc<pb::HostDesired>>>,
        heard: &mut bool,
    ) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(self.url.clone())
            .context("agent's address")?
            .tls_config(self.tls.clone())
            .context("TLS towards agents")?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect()
            .await
            .context("connecting")?;
        let mut client = HostAgentClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut reports = client.observe(pb::ObserveRequest {}).await?.into_inner();
        // What was given before may have been lost with the connection.
        desired.mark_changed();
        loop {
            tokio::select! {
                report = tokio::time::timeout(SILENCE, reports.message()) => {
                    let Some(report) = report.context("no report")?? else { return Ok(()) };
                    if report.host != self.host {
                        bail!("this address belongs to host {:?}", report.host);
                    }
                    if !std::mem::replace(heard, true) {
                        tracing::info!(host = self.host, url = self.url, "agent is connected");
                    }
                    self.take(report);
                }
                changed = desired.changed() => {
                    changed.context("the controller ends")?;
                    self.apply(&mut client, desired).await?;
                }
            }
        }
    }

    fn take(&self, report: pb::HostObserved) {
        let mut view = self.view.lock().expect("no code panics while it holds this lock");
        let same = view.connected && view.report.as_deref() == Some(&report);
        view.connected = true;
        view.problem.clear();
        view.report = Some(Arc::new(report));
        drop(view);
        if !same {
            self.rung.notify_one();
        }
    }

    async fn apply(
        &self,
        client: &mut HostAgentClient<Channel>,
        desired: &mut watch::Receiver<Option<Arc<pb::HostDesired>>>,
    ) -> anyhow::Result<()> {
        let Some(desired) = desired.borrow_and_update().clone() else { return Ok(()) };
        let call = client.apply(pb::HostDesired::clone(&desired));
        tokio::time::timeout(APPLY_TIMEOUT, call)
            .await
            .context("the agent took too long to store its desired state")??;
        self.change(|view| view.applied = Some(desired));
        Ok(())
    }
}
