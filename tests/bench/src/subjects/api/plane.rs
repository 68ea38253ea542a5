//! A store and an API server, fresh.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::control::{self, Files};
use lab::mix::{Mix, Part};
use lab::process::Process;
use tokio::net::TcpStream;

use super::{Call, Client, Identity};
use crate::bench::Bench;
use crate::machine;

const START_WITHIN: Duration = Duration::from_secs(180);
const ASK_EVERY: Duration = Duration::from_millis(20);
const STORE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 2379);
/// Whoever is in it passes every check: no rule is looked up, and no fairness holds it back.
const ADMINISTRATORS: &str = "system:masters";
/// More than any subject stores between two compactions, bytes.
const QUOTA: u64 = 8 << 30;

/// What the API server is to the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server under test, alone on its processor.
    UnderTest,
    /// A helper on the client's.
    Helper,
}

/// An API server and its store, which is always a helper.
pub struct Plane {
    /// The API server.
    pub server: Process,
    /// Authorities and files.
    pub files: Files,
    /// How long the API server took from its start to `/readyz`.
    pub started_in: Duration,
    // Last, so that the API server ends first.
    _store: Process,
}

impl Plane {
    /// Starts both with an empty store, and waits until the API server is ready. `flags` are for the
    /// API server, beside those of every lab.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(
        bench: &Bench,
        mix: &Mix,
        role: Role,
        flags: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        // It stands in the certificate and must not be a loopback address.
        machine::ip(&["address", "replace", &format!("{}/16", control::ADDRESS), "dev", "lo"])?;
        let files = Files::write(&bench.scratch("control-plane")?)?;
        let mut spec = control::spec(Part::Etcd, mix, &bench.places, &files)?;
        spec.flag("quota-backend-bytes", QUOTA.to_string());
        let mut store = bench.helper(spec)?;
        bench.wait("the store's port", &mut store, (ASK_EVERY, START_WITHIN), async || {
            Ok(TcpStream::connect(STORE).await.ok())
        })?;
        let mut spec = control::spec(Part::ApiServer, mix, &bench.places, &files)?;
        spec.flags(flags);
        let server = match role {
            Role::UnderTest => bench.server(spec, mix.of(Part::ApiServer))?,
            Role::Helper => bench.helper(spec)?,
        };
        let mut plane = Self { server, files, started_in: Duration::ZERO, _store: store };
        plane.started_in = plane.wait_until_ready(bench)?;
        Ok(plane)
    }

    /// An administrator.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn administrator(&self) -> anyhow::Result<Identity> {
        Identity::new(&self.files, "bench-admin", Some(ADMINISTRATORS))
    }

    /// Kills the API server and starts it again. Returns how long it then took to `/readyz`.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self, bench: &Bench) -> anyhow::Result<Duration> {
        self.server.start_again()?;
        self.wait_until_ready(bench)
    }

    fn wait_until_ready(&mut self, bench: &Bench) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let administrator = self.administrator()?;
        let mut client = None;
        let pace = (ASK_EVERY, START_WITHIN);
        let ready = bench.wait("a ready API server", &mut self.server, pace, async || {
            if client.is_none() {
                client = Client::connect(&administrator, 1).await.ok();
            }
            let Some(connected) = &client else { return Ok(None) };
            let ready = connected.read(0, &Call::get("/readyz")).await;
            Ok(ready.is_ok().then(|| started.elapsed()))
        });
        ready.context("starting the API server")
    }
}
