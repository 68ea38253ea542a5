//! etcd: one member, plain gRPC over loopback.

mod keys;
mod memory;
mod requests;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use etcd_api::client::{Client, connect};
use lab::mix::{Origin, Part};
use lab::process::{Process, Spec};

use crate::bench::Bench;
use crate::figures::Figures;
use crate::floor;
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "etcd",
    part: Part::Etcd,
    about: "One member with an empty data directory in every turn, values of 1 kB, keys such as \
            kube-apiserver's, the same flags for both. Clients send their next request when the last one \
            is answered, over as many HTTP/2 connections as they are, up to 16. *create*, *update* and \
            *delete* are kube-apiserver's transactions (if the revision of the key is still that, put or \
            delete it, else read it). The lag of a watch runs from the sending of a put to the arrival \
            of its event at one of the watchers, all of which are this one client.",
    start: |_| Ok(Box::new(Etcd)),
};

/// Bytes of a value, as in etcd's own benchmarks.
const VALUE: usize = 1024;
/// Bytes of what the log gets for a put: value, key and framing, roughly.
const LOG_ENTRY: usize = 1152;
const URL: &str = "http://127.0.0.1:2379";
/// More than any scene stores.
const QUOTA: u64 = 8 << 30;
const START_WITHIN: Duration = Duration::from_secs(120);

struct Etcd;

impl Subject for Etcd {
    fn scenes(&self, _bench: &Bench) -> Vec<Scene> {
        vec![
            Scene::new("requests"),
            Scene::new("100 × 100 watches"),
            Scene { name: "a large key space".into(), most_rounds: 1 },
        ]
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        if scene == 0 {
            floor::measure(bench, LOG_ENTRY, figures)?;
        }
        let mut member = Member::start(bench, origin)?;
        match scene {
            0 => keys::measure(bench, &member, figures),
            1 => watch::measure(bench, &member, figures),
            _ => memory::measure(bench, &mut member, figures),
        }
    }
}

/// The server under test.
struct Member {
    process: Process,
    data: PathBuf,
}

impl Member {
    fn start(bench: &Bench, origin: Origin) -> anyhow::Result<Self> {
        let data = bench.scratch("etcd")?;
        let mut spec = Spec::new("etcd", bench.places.executable(Part::Etcd, origin)?);
        let peer = "http://127.0.0.1:2380".to_owned();
        spec.flag("data-dir", &data).flags(&[
            ("name", "bench".to_owned()),
            ("listen-client-urls", URL.to_owned()),
            ("advertise-client-urls", URL.to_owned()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("bench={peer}")),
            ("quota-backend-bytes", QUOTA.to_string()),
        ]);
        let process = bench.server(spec, origin)?;
        let mut member = Self { process, data };
        member.wait_until_ready(bench)?;
        Ok(member)
    }

    /// Until it answers a linearizable read. Returns how long that took.
    fn wait_until_ready(&mut self, bench: &Bench) -> anyhow::Result<Duration> {
        let started = std::time::Instant::now();
        let pace = (Duration::from_millis(5), START_WITHIN);
        bench.wait("a first answer", &mut self.process, pace, async || {
            // A client of its own for each attempt: a failed one waits before it dials again.
            let read = requests::get("/registry/none", false);
            Ok(client(1)?.kv().range(read).await.ok())
        })?;
        Ok(started.elapsed())
    }
}

/// A client with some connections, used in turn.
fn client(connections: usize) -> anyhow::Result<Client> {
    Ok(connect(&vec![URL; connections], None)?)
}
