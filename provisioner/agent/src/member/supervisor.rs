//! Keeps one member running as desired, for as long as it is desired.
//!
//! Level-triggered: each turn looks at what is desired and at what runs (found by its lock), and
//! does the next thing. The member outlives the supervisor.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use provisioner_api::{
    launch_hash,
    pb::{self, MemberPhase},
};
use tokio::sync::watch;

use super::{
    health::Probe,
    log,
    setup::{self, ClusterDir},
};
use crate::{
    board::Board,
    config::AgentConfig,
    process::{self, Running},
};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A member that ran this long starts again without delay.
const STABLE: Duration = Duration::from_secs(20);
/// How long a member may take to end by itself.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How often a member is asked until it is ready, and then.
const ASK_STARTING: Duration = Duration::from_millis(50);
const ASK_READY: Duration = Duration::from_secs(2);
/// So many questions without a good answer make a ready member not ready.
const FAILURES: u32 = 3;

/// What is wanted of a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// That it runs like this.
    Run(Arc<pb::Member>),
    /// That it ends, and its files and groups go. With its cluster: at once; alone: gracefully.
    Gone {
        /// No grace period.
        at_once: bool,
    },
}

/// Everything that a supervisor needs.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The agent's configuration.
    pub config: Arc<AgentConfig>,
    /// Where to report.
    pub board: Board,
    /// Cluster id.
    pub cluster: String,
    /// The cluster's directory.
    pub dir: ClusterDir,
    /// Member's name.
    pub name: String,
}

/// Why a turn of supervision ended.
enum Turn {
    Ended(process::Ended),
    WantedChanged,
}

impl Supervisor {
    /// Runs until the member is wanted gone and is gone.
    pub async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        let mut backoff = FIRST_BACKOFF;
        let mut restarts = 0;
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            let member = match now_wanted {
                Wanted::Run(member) => member,
                Wanted::Gone { at_once } => {
                    self.remove(at_once).await;
                    return;
                }
            };
            let started = Instant::now();
            let turn = match self.obtain(&member).await {
                Ok((running, adopted)) => {
                    // An adopted member is what it was until its health says otherwise.
                    if !adopted {
                        let (pid, message) = (running.pid, "Starting.".to_owned());
                        self.report(&member, MemberPhase::Starting, message, pid, restarts);
                    }
                    let turn = self.watch(&running, &member, restarts, &mut wanted).await;
                    if matches!(turn, Turn::WantedChanged) {
                        continue;
                    }
                    turn
                }
                Err(error) => {
                    self.report(&member, MemberPhase::Failed, format!("{error:#}"), 0, restarts);
                    tracing::warn!(
                        cluster.id = self.cluster,
                        member = self.name,
                        error = format!("{error:#}"),
                        "member cannot be started"
                    );
                    Turn::WantedChanged
                }
            };
            if let Turn::Ended(how) = turn {
                // What it said last explains an exit, and nothing about being killed.
                let message = match how {
                    process::Ended::Code(code) if code != 0 => {
                        format!("{how}: {}", log::last_line(&self.dir.log(&self.name)))
                    }
                    _ => how.to_string(),
                };
                tracing::warn!(
                    cluster.id = self.cluster,
                    member = self.name,
                    message,
                    "member ended"
                );
                restarts += 1;
                self.report(&member, MemberPhase::Failed, message, 0, restarts);
            }
            if started.elapsed() >= STABLE {
                backoff = FIRST_BACKOFF;
            }
            // A changed wish ends the wait; what it was is looked at in the next turn.
            let _ = tokio::time::timeout(backoff, wanted.changed()).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// The running process: found and of this specification (then `true`), or started.
    async fn obtain(&self, member: &pb::Member) -> anyhow::Result<(Running, bool)> {
        let base = self.dir.member(&self.name);
        if let Some(running) = process::find(&base)? {
            if running.hash == launch_hash(member) {
                tracing::info!(
                    cluster.id = self.cluster,
                    member = self.name,
                    pid = running.pid,
                    "member adopted"
                );
                return Ok((running, true));
            }
            tracing::info!(
                cluster.id = self.cluster,
                member = self.name,
                pid = running.pid,
                "member is restarted with a new specification"
            );
            end(&running, false).await;
        }
        let spec = setup::prepare(&self.config, &self.cluster, &self.dir, member)?;
        let running = process::start(&self.config.launcher, &spec)?;
        tracing::info!(
            cluster.id = self.cluster,
            member = self.name,
            pid = running.pid,
            "member started"
        );
        Ok((running, false))
    }

    /// Watches a running process until it ends or something else is wanted.
    async fn watch(
        &self,
        running: &Running,
        member: &Arc<pb::Member>,
        restarts: u32,
        wanted: &mut watch::Receiver<Wanted>,
    ) -> Turn {
        tokio::select! {
            how = running.ended() => Turn::Ended(how),
            () = self.ask(running.pid, member, restarts) => Turn::WantedChanged,
            () = self.bound_log() => Turn::WantedChanged,
            () = changed_from(wanted, member) => Turn::WantedChanged,
        }
    }

    /// Asks for health and reports it; never returns.
    async fn ask(&self, pid: i32, member: &pb::Member, restarts: u32) {
        let probe = match Probe::new(member.health.as_ref()) {
            Ok(probe) => probe,
            Err(error) => {
                self.report(member, MemberPhase::Starting, format!("{error:#}"), pid, restarts);
                return std::future::pending().await;
            }
        };
        let Some(probe) = probe else {
            self.report(member, MemberPhase::Ready, String::new(), pid, restarts);
            return std::future::pending().await;
        };
        let mut ready = false;
        let mut failures = 0;
        loop {
            match probe.ask().await {
                Ok(()) => {
                    (ready, failures) = (true, 0);
                    self.report(member, MemberPhase::Ready, String::new(), pid, restarts);
                }
                Err(error) => {
                    failures += 1;
                    if !ready || failures >= FAILURES {
                        ready = false;
                        let message = format!("Not ready: {error:#}");
                        self.report(member, MemberPhase::Starting, message, pid, restarts);
                    }
                }
            }
            let pause = match ready {
                true if failures == 0 => ASK_READY,
                // A member that stays unready is asked less often.
                _ if failures > 100 => ASK_READY,
                _ => ASK_STARTING,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn bound_log(&self) {
        let path = self.dir.log(&self.name);
        loop {
            if let Err(error) = log::bound(&path, log::MAX_BYTES) {
                tracing::warn!(cluster.id = self.cluster, member = self.name, %error,
                    "log cannot be cut");
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    /// Ends the process and removes its files and groups, however often that takes.
    async fn remove(&self, at_once: bool) {
        self.board.member(&self.cluster, &self.name, |state| {
            state.phase = MemberPhase::Waiting.into();
            state.message = "Is being removed.".to_owned();
        });
        loop {
            match self.try_remove(at_once).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    cluster.id = self.cluster,
                    member = self.name,
                    error = format!("{error:#}"),
                    "member cannot be removed yet"
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.board.member_gone(&self.cluster, &self.name);
    }

    async fn try_remove(&self, at_once: bool) -> anyhow::Result<bool> {
        let base = self.dir.member(&self.name);
        if let Some(running) = process::find(&base)? {
            end(&running, at_once).await;
        }
        if !crate::cgroup::remove_member(&self.cluster, &self.name)? {
            return Ok(false);
        }
        crate::durable::remove_tree(&base)?;
        Ok(true)
    }

    fn report(
        &self,
        member: &pb::Member,
        phase: MemberPhase,
        message: String,
        pid: i32,
        restarts: u32,
    ) {
        self.board.member(&self.cluster, &self.name, |state| {
            state.id.clone_from(&member.id);
            state.phase = phase.into();
            state.message = message;
            state.pid = pid;
            state.restarts = restarts;
            state.launch_hash = launch_hash(member);
        });
    }
}

/// Returns when something other than this very member is wanted.
async fn changed_from(wanted: &mut watch::Receiver<Wanted>, member: &Arc<pb::Member>) {
    let same = |now: &Wanted| matches!(now, Wanted::Run(other) if other == member);
    // The sender is dropped only when the agent ends, and members outlive it.
    if wanted.wait_for(|now| !same(now)).await.is_err() {
        std::future::pending().await
    }
}

/// Asks a process to end, and makes it.
pub async fn end(running: &Running, at_once: bool) {
    if !at_once {
        running.signal(Signal::SIGTERM);
        if tokio::time::timeout(TERM_GRACE, running.ended()).await.is_ok() {
            return;
        }
    }
    running.signal(Signal::SIGKILL);
    running.ended().await;
}
