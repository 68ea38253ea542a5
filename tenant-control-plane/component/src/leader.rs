//! Leader election on a `coordination.k8s.io/v1` Lease, with upstream's timing rules.
//!
//! A candidate never trusts another's clock: it remembers when it *saw* the lease change, and takes
//! the lease over only when it saw no change for the lease duration.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Flags of leader election, as every control-plane component has them.
#[derive(Args, Clone, Debug)]
pub struct LeaderElectionFlags {
    /// Elect a leader before doing anything; needed when several replicas run.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// How long a lease that is not renewed is respected.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub leader_elect_renew_deadline: Duration,
    /// Pause between attempts.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub leader_elect_retry_period: Duration,
    /// Kind of the lock object; only `leases` exists.
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// Name of the lock object; the component's own name by default.
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// Namespace of the lock object.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

/// Reads a duration as Go writes it: `1h30m`, `15s`, `200ms`, or `0`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a duration"))?;
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(format!("{text:?} is not a duration: use units h, m, s or ms")),
        };
        total += number * scale;
        rest = tail;
    }
    if text.is_empty() {
        return Err("an empty text is not a duration".to_owned());
    }
    Ok(Duration::from_secs_f64(total))
}

/// Takes part in an election.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    namespace: String,
    identity: String,
    flags: LeaderElectionFlags,
    observed: Option<Observed>,
}

struct Observed {
    lease: Lease,
    at: Instant,
}

/// What the lease's present state means for a candidate.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// Nobody else holds it, or the holder has been silent for too long.
    Take,
    /// It is ours.
    Renew,
    /// Somebody else holds it.
    Wait,
}

fn claim(spec: &LeaseSpec, identity: &str, unchanged_for: Duration) -> Claim {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let respected = Duration::from_secs(
        u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default(),
    );
    if holder == identity {
        Claim::Renew
    } else if holder.is_empty() || unchanged_for >= respected {
        Claim::Take
    } else {
        Claim::Wait
    }
}

/// Names a candidate by host name and a part of its own.
///
/// A process that holds a listening socket (its *seat*) can have only successors there, no rivals:
/// whoever binds the same address in the same network namespace and boot of the machine knows that
/// its predecessor is dead. It gets the predecessor's name, and so takes over its lease at once
/// instead of waiting for it to run out. Without a seat, the name is random.
fn identity(seat: Option<SocketAddr>) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let host = read("/proc/sys/kernel/hostname");
    let boot = read("/proc/sys/kernel/random/boot_id");
    let network = std::fs::read_link("/proc/self/ns/net");
    let unique = match (seat, network) {
        (Some(seat), Ok(network)) if !boot.is_empty() => {
            let half = |salt: u8| {
                let mut hasher = DefaultHasher::new();
                (salt, &boot, &network, seat).hash(&mut hasher);
                hasher.finish()
            };
            uuid::Uuid::from_u64_pair(half(0), half(1))
        }
        _ => uuid::Uuid::new_v4(),
    };
    format!("{host}_{unique}")
}

impl Elector {
    /// A candidate for the component's lease. See [`identity`] for `seat`.
    pub fn new(
        client: Client,
        component: &str,
        flags: LeaderElectionFlags,
        seat: Option<SocketAddr>,
    ) -> Self {
        let identity = identity(seat);
        let namespace = flags.leader_elect_resource_namespace.clone();
        Self {
            api: Api::namespaced(client, &namespace),
            name: flags.leader_elect_resource_name.clone().unwrap_or_else(|| component.to_owned()),
            namespace,
            identity,
            flags,
            observed: None,
        }
    }

    /// Waits until this process is the leader. Returns false when shutdown came first.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        tracing::info!(lease = %self.name, identity = %self.identity, "waiting to become leader");
        loop {
            let pause = match self.attempt().await {
                Ok(true) => {
                    tracing::info!(lease = %self.name, "became leader");
                    metrics::gauge("leader_election_master_status", &[("name", &self.name)], 1.0);
                    return true;
                }
                Ok(false) => self.flags.leader_elect_retry_period,
                // No answer at all: the API server is probably starting.
                Err(error) => {
                    tracing::debug!(lease = %self.name, "could not get the lease: {error}");
                    self.flags.leader_elect_retry_period.min(Duration::from_millis(250))
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Renews until shutdown (then gives the lease back and returns true) or until the lease is
    /// lost (false): then the process must end, since another may be leader.
    pub async fn hold(&mut self, shutdown: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => { self.release().await; return true; }
                () = tokio::time::sleep(self.flags.leader_elect_retry_period) => {}
            }
            let left = self.flags.leader_elect_renew_deadline.saturating_sub(renewed.elapsed());
            let attempt = tokio::time::timeout(left, self.attempt()).await;
            match attempt {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(lease = %self.name, "could not renew: {error}"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.flags.leader_elect_renew_deadline {
                break;
            }
        }
        metrics::gauge("leader_election_master_status", &[("name", &self.name)], 0.0);
        tracing::error!(lease = %self.name, "lost the lease");
        false
    }

    /// One attempt to take or renew. `Ok(true)` when the lease is ours.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let Some(current) = self.api.get_opt(&self.name).await? else {
            let fresh = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..Default::default()
                },
                spec: Some(self.spec(Some(now.clone()), now, 0)),
            };
            let created = self.api.create(&PostParams::default(), &fresh).await;
            return self.written(created);
        };
        let changed = self
            .observed
            .as_ref()
            .is_none_or(|o| o.lease.metadata.resource_version != current.metadata.resource_version);
        if changed {
            self.observed = Some(Observed { lease: current.clone(), at: Instant::now() });
        }
        let silent = self.observed.as_ref().map_or(Duration::ZERO, |o| o.at.elapsed());
        let spec = current.spec.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or_default();
        let mut next = current;
        next.spec = Some(match claim(&spec, &self.identity, silent) {
            Claim::Wait => return Ok(false),
            Claim::Renew => self.spec(spec.acquire_time, now, transitions),
            Claim::Take => self.spec(Some(now.clone()), now, transitions + 1),
        });
        let replaced = self.api.replace(&self.name, &PostParams::default(), &next).await;
        self.written(replaced)
    }

    fn written(&mut self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(lease) => {
                self.observed = Some(Observed { lease, at: Instant::now() });
                Ok(true)
            }
            // Another candidate was quicker; the next attempt sees who holds it.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let held = self.observed.as_ref().and_then(|o| o.lease.spec.as_ref());
                match held.and_then(|spec| spec.holder_identity.as_deref()) {
                    Some(holder) if holder == self.identity => Err(kube::Error::Api(status)),
                    _ => Ok(false),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn spec(&self, acquired: Option<MicroTime>, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        let seconds = self.flags.leader_elect_lease_duration.as_secs();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: acquired,
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..Default::default()
        }
    }

    /// Lets the next candidate start at once.
    async fn release(&mut self) {
        let Some(observed) = self.observed.take() else { return };
        let mut lease = observed.lease;
        let now = MicroTime(Timestamp::now());
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: transitions,
            ..Default::default()
        });
        let params = PostParams::default();
        let replacing = self.api.replace(&self.name, &params, &lease);
        match tokio::time::timeout(Duration::from_secs(2), replacing).await {
            Ok(Ok(_)) => tracing::info!(lease = %self.name, "gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.name, "could not give the lease back: {error}")
            }
            Err(_) => tracing::warn!(lease = %self.name, "could not give the lease back in time"),
        }
    }
}

/// Runs `work` while this process is the leader (or at once when election is off). `seat` is the
/// address that the process listens on, if any ([`crate::serving::start`] returns it). `work` gets a
/// token that is cancelled on shutdown.
///
/// # Errors
/// When the lease is lost, or `work` fails: the process should end with an error.
pub async fn run_elected<F, Fut>(
    client: Client,
    component: &str,
    flags: LeaderElectionFlags,
    seat: Option<SocketAddr>,
    shutdown: CancellationToken,
    work: F,
) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    if !flags.leader_elect {
        return work(shutdown).await;
    }
    let mut elector = Elector::new(client, component, flags, seat);
    if !elector.acquire(&shutdown).await {
        return Ok(());
    }
    // The lease is given back only after the work has stopped.
    let (stopped, guard) = (CancellationToken::new(), shutdown.child_token());
    let working = async {
        let result = work(guard.clone()).await;
        stopped.cancel();
        result
    };
    let holding = elector.hold(&stopped);
    tokio::pin!(working, holding);
    tokio::select! {
        result = &mut working => { holding.await; result }
        _ = &mut holding => anyhow::bail!("the leader lease was lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_silent_or_released_lease_is_taken() {
        let s = Duration::from_secs;
        assert_eq!(claim(&held_by("other"), "me", s(14)), Claim::Wait);
        assert_eq!(claim(&held_by("other"), "me", s(15)), Claim::Take);
        assert_eq!(claim(&held_by(""), "me", s(0)), Claim::Take);
        assert_eq!(claim(&held_by("me"), "me", s(99)), Claim::Renew);
    }

    #[test]
    fn a_successor_on_the_same_seat_has_the_same_name() {
        let seat = |port: u16| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(identity(seat(1)), identity(seat(1)));
        assert_ne!(identity(seat(1)), identity(seat(2)));
        assert_ne!(identity(None), identity(None));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("1m0s").unwrap(), Duration::from_secs(60));
        assert_eq!(parse_duration("2.5s").unwrap(), Duration::from_millis(2500));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        for wrong in ["", "5", "5 s", "s", "-1s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
