//! A tenant: the four servers of a control plane, in a network namespace of their own.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::control::{self, Files};
use lab::mix::{Mix, Origin, Part};
use lab::process::Process;

use super::namespace::Namespace;
use crate::bench::Bench;
use crate::subjects::api::{Call, Client, Identity};

/// The servers, in the order in which they are started.
pub const PARTS: [Part; 4] =
    [Part::Etcd, Part::ApiServer, Part::ControllerManager, Part::Scheduler];
/// How long a tenant may take to become usable.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A request that takes longer is given up.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Whoever is in it passes every check.
const ADMINISTRATORS: &str = "system:masters";

/// A control plane. Killed when dropped.
pub struct Tenant {
    /// Those that were started of [`PARTS`], in that order.
    servers: Vec<Process>,
    namespace: Namespace,
    administrator: Identity,
    /// From the start of etcd until `/readyz` says ok and the default namespace is there.
    pub ready_in: Duration,
    /// From the start of etcd until pods can be created: the default ServiceAccount is there.
    pub usable_in: Duration,
}

impl Tenant {
    /// Starts tenant `number` and waits until pods can be created in it. Nothing when that takes
    /// too long.
    ///
    /// # Errors
    /// A server cannot be started, or ends.
    pub fn start(bench: &Bench, origin: Origin, number: usize) -> anyhow::Result<Option<Self>> {
        let files = Files::write(&bench.scratch(&format!("tenant-{number:02}"))?)?;
        let mut tenant = Self {
            servers: Vec::new(),
            namespace: Namespace::new()?,
            administrator: Identity::new(&files, "bench-admin", Some(ADMINISTRATORS))?,
            ready_in: Duration::ZERO,
            usable_in: Duration::ZERO,
        };
        let started = Instant::now();
        let who = format!("{origin}-{number:02}");
        let run = |tenant: &mut Self, parts: &[Part], level: &str| {
            for part in parts {
                let spec = control::spec(*part, &Mix::all(origin), &bench.places, &files)?;
                let server = tenant.namespace.inside(|| bench.unpinned(spec, &who))??;
                tenant.servers.push(server);
            }
            tenant.wait(bench, started, level)
        };
        let ready = run(&mut tenant, &PARTS[..2], "/readyz")?;
        let there = ready.map(|_| run(&mut tenant, &[], "/api/v1/namespaces/default"));
        let Some(ready_in) = there.transpose()?.flatten() else { return Ok(None) };
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        let Some(usable_in) = run(&mut tenant, &PARTS[2..], account)? else { return Ok(None) };
        (tenant.ready_in, tenant.usable_in) = (ready_in, usable_in);
        Ok(Some(tenant))
    }

    /// Waits until a path is answered; tells how long after `started`.
    fn wait(
        &mut self,
        bench: &Bench,
        started: Instant,
        path: &str,
    ) -> anyhow::Result<Option<Duration>> {
        bench.block_on(async {
            while started.elapsed() < START_WITHIN {
                if self.ask(path).await.is_ok() {
                    return Ok(Some(started.elapsed()));
                }
                self.check()?;
                tokio::time::sleep(POLL).await;
            }
            Ok(None)
        })
    }

    /// Asks the API server for a path, over a new connection.
    ///
    /// # Errors
    /// It refuses, or does not answer within [`ANSWER_WITHIN`].
    pub async fn ask(&self, path: &str) -> anyhow::Result<()> {
        let answer = self.namespace.within(async {
            let client = Client::connect(&self.administrator, 1).await?;
            client.read(0, &Call::get(path)).await
        });
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        answer.context("no answer")???;
        Ok(())
    }

    /// An error when a server has ended.
    ///
    /// # Errors
    /// One has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.servers.iter_mut().try_for_each(Process::check)
    }

    /// Processor time of each server since its start, in the order of [`PARTS`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn used(&self) -> anyhow::Result<Vec<Duration>> {
        self.servers.iter().map(Process::used).collect()
    }

    /// Proportional set size of each server, bytes, in the order of [`PARTS`].
    ///
    /// # Errors
    /// One has ended.
    pub fn pss(&self) -> anyhow::Result<Vec<u64>> {
        self.servers.iter().map(Process::pss).collect()
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // Clients before what they lean on.
        while let Some(mut server) = self.servers.pop() {
            server.kill();
        }
    }
}
