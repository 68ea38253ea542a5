//! kube-proxy in nftables mode, fed by a real API server.

mod kernel;
mod services;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::control;
use lab::mix::{Mix, Origin, Part};
use lab::process::{Process, Spec};

use self::kernel::{Changes, Kernel};
use self::services::Services;
use crate::bench::Bench;
use crate::cluster::Cluster;
use crate::figures::{Figures, Unit};
use crate::machine;
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "proxy",
    part: Part::Proxy,
    about: "The proxy alone on its processor; upstream's kube-apiserver and etcd, with all Services, on \
            the client's. Every Service has a cluster IP, one port and an EndpointSlice with two \
            endpoints. *Full load* runs from the start of the process, with an empty table, until the \
            kernel knows every Service's address. A *change* runs from the sending of the patch that gives \
            one endpoint another address until the kernel announces the rule or the map's element with \
            that address. Processor time includes the `nft` that the proxy starts; PSS does not.",
    start: |bench| Ok(Box::new(Proxy::start(bench)?)),
};

/// Name of the Node that the proxy runs on.
const NODE: &str = "bench";
/// Port of every Service.
const PORT: u16 = 80;
/// How long a full load may take.
const LOAD_WITHIN: Duration = Duration::from_secs(1_800);
/// How often the kernel is asked for the last Service; it answers within microseconds.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// How long a change may take.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);
/// Between two changes, and then until the proxy rests for a second. Together longer than the second
/// for which upstream's collects changes, so that each is written at once.
const BETWEEN_CHANGES: Duration = Duration::from_millis(500);

struct Proxy {
    cluster: Cluster,
    services: Services,
    /// Changes so far: no address is used twice.
    changes: u32,
}

/// Headline, Services, and rounds at most: with upstream's the kernel's time for a full load grows with
/// the square of the number of anonymous maps, of which there is one per Service. Then, changes per
/// round: each costs it as much as all Services.
const SIZES: [(&str, usize, usize, u32); 3] = [
    ("1,000 Services", 1_000, usize::MAX, 20),
    ("10,000 Services", 10_000, usize::MAX, 20),
    ("30,000 Services", 30_000, 1, 5),
];

impl Subject for Proxy {
    fn scenes(&self, bench: &Bench) -> Vec<Scene> {
        let scene = |(name, _, most_rounds, _): &(&str, _, _, _)| Scene {
            name: (*name).to_owned(),
            most_rounds: *most_rounds,
        };
        SIZES[..bench.either(3, 1)].iter().map(scene).collect()
    }

    fn prepare(&mut self, bench: &Bench, scene: usize) -> anyhow::Result<()> {
        self.services.grow(bench, &mut self.cluster, SIZES[scene].1)
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        // That of this program's own network namespace.
        machine::run("nft", &["flush", "ruleset"])?;
        let mut proxy = self.full_load(bench, origin, figures)?;
        bench.settle(&proxy)?;
        figures.memory("PSS", "", proxy.pss()?);
        figures.cpu("idle for a second", "", bench.idle(&proxy)?);
        let count = SIZES[scene].3.min(bench.either(u32::MAX, 5));
        self.change_endpoints(bench, count, &mut proxy, figures)?;
        figures.memory("PSS, after the changes", "", proxy.pss()?);
        drop(proxy);
        machine::run("nft", &["flush", "ruleset"])
    }
}

impl Proxy {
    fn start(bench: &Bench) -> anyhow::Result<Self> {
        let cluster = Cluster::start(bench, &Mix::all(Origin::Upstream))?;
        bench.block_on(cluster.create_node(NODE, control::ADDRESS))?;
        Ok(Self { cluster, services: Services::default(), changes: 0 })
    }

    fn full_load(
        &self,
        bench: &Bench,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<Process> {
        let spec = self.spec(bench, origin)?;
        let mut kernel = Kernel::open()?;
        let services: Vec<Ipv4Addr> = self.services.addresses().collect();
        let started = Instant::now();
        let mut proxy = bench.server(spec, origin)?;
        let mut missing = services.len();
        let pace = (ASK_EVERY, LOAD_WITHIN);
        let loaded = bench.wait("the full table", &mut proxy, pace, async || {
            // When all are there at once, as both proxies write them, this is when.
            let now = Instant::now();
            while missing > 0 && kernel.has_service(services[missing - 1])? {
                missing -= 1;
            }
            Ok((missing == 0).then_some(now))
        })?;
        figures.add("full load", "", Unit::Seconds, (loaded - started).as_secs_f64());
        bench.settle(&proxy)?;
        figures.add("full load", "", Unit::CpuSeconds, proxy.used()?.as_secs_f64());
        Ok(proxy)
    }

    fn spec(&self, bench: &Bench, origin: Origin) -> anyhow::Result<Spec> {
        let mut spec = Spec::new("kube-proxy", bench.places.executable(Part::Proxy, origin)?);
        spec.flag("kubeconfig", self.cluster.kubeconfig()).flags(&[
            ("proxy-mode", "nftables".to_owned()),
            ("hostname-override", NODE.to_owned()),
            ("cluster-cidr", control::POD_CIDR.to_owned()),
            ("healthz-bind-address", "127.0.0.1:10256".to_owned()),
            // The limits of connection tracking belong to the machine, not to this namespace.
            ("conntrack-max-per-core", "0".to_owned()),
            ("conntrack-min", "0".to_owned()),
        ]);
        Ok(spec)
    }

    fn change_endpoints(
        &mut self,
        bench: &Bench,
        count: u32,
        proxy: &mut Process,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let before = proxy.used()?;
        let (mut writes, mut lags) = (Vec::new(), Vec::new());
        for _ in 0..count {
            self.changes += 1;
            let (write, lag) = self.change(bench)?;
            proxy.check()?;
            writes.push(write);
            lags.push(lag);
            bench.block_on(tokio::time::sleep(BETWEEN_CHANGES));
            bench.settle(proxy)?;
        }
        let each = (proxy.used()? - before) / count;
        writes.sort_unstable();
        lags.sort_unstable();
        figures.latency("one endpoint changes", &lags);
        figures.cpu("one endpoint changes", "", each);
        figures.latency("floor: the API server answers the patch", &writes);
        Ok(())
    }

    /// Gives an endpoint a new address. Returns how long the API server and the kernel took.
    fn change(&self, bench: &Bench) -> anyhow::Result<(Duration, Duration)> {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 230, 0, 0)) + self.changes);
        // No two changes in a row touch the same Service.
        let service = self.changes as usize * 7_919 % self.services.count();
        let changes = Changes::listen()?;
        std::thread::scope(|scope| {
            let kernel = scope.spawn(move || changes.wait_for(address, CHANGE_WITHIN));
            let started = Instant::now();
            let patched = bench.block_on(self.services.change(&self.cluster, service, address));
            let write = started.elapsed();
            let seen = kernel.join().expect("the thread returns its errors");
            patched.context("patching an EndpointSlice")?;
            let lag = seen.with_context(|| format!("endpoint {address}"))? - started;
            Ok((write, lag))
        })
    }
}
