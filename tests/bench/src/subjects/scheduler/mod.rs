//! kube-scheduler: the workloads of upstream's `scheduler_perf`, replayed against either.

mod bindings;
mod replay;
mod templates;
mod workloads;

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::{Either, select};
use lab::control;
use lab::mix::{Mix, Origin, Part};
use lab::process::Process;

use self::bindings::Bindings;
use self::replay::Pods;
use self::workloads::{Batch, Kind, Workload};
use super::api::{Client, Plane, Role};
use crate::bench::Bench;
use crate::drive::{Sample, rate};
use crate::figures::{Figures, Unit};
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "scheduler",
    part: Part::Scheduler,
    about: "The scheduler alone on its processor; upstream's kube-apiserver and etcd on the client's, with \
            the nodes as mere objects, the admission plugins that `scheduler_perf` turns off (ServiceAccount, \
            TaintNodesByCondition, Priority) turned off, and no controllers. Names and sizes of the \
            workloads are those of upstream's `test/integration/scheduler_perf`; both schedulers run with \
            5,000 requests per second allowed to their client, as there, and their defaults otherwise. *All \
            at once*: 64 clients create the measured pods while the scheduler works, so the latency is \
            mostly that of the queue; the rate ends at the *floor*, which is what the API server on the \
            client's processor can do when this client binds every pod itself. Then, where there is room, \
            more pods come *one every 50 ms*. Latencies run from the sending of a pod to the arrival of its \
            binding in a watch.",
    start: |bench| Ok(Box::new(Scheduler::start(bench)?)),
};

/// Connections of the client.
const CONNECTIONS: usize = 8;
/// Between two pods when the scheduler is not to be busy.
const PACE: Duration = Duration::from_millis(50);
/// Between two pods that come meanwhile.
const MEANWHILE: Duration = Duration::from_millis(200);
/// Requests per second that the scheduler's client may send.
const QPS: &str = "5000";
/// Those that `scheduler_perf` turns off in its API server.
const WITHOUT: &str = "ServiceAccount,TaintNodesByCondition,Priority";

struct Scheduler {
    plane: Plane,
    client: Client,
    workloads: Vec<Workload>,
}

impl Subject for Scheduler {
    fn scenes(&self, bench: &Bench) -> Vec<Scene> {
        let scene = |workload: &Workload| Scene {
            name: workload.headline(bench.quick),
            most_rounds: workload.most_rounds,
        };
        self.workloads.iter().map(scene).collect()
    }

    fn prepare(&mut self, bench: &Bench, scene: usize) -> anyhow::Result<()> {
        self.plane.server.check()?;
        let workload = &self.workloads[scene];
        let count = workload.size(bench.quick).nodes;
        bench.block_on(replay::nodes(&self.client, workload, count))
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let workload = self.workloads[scene];
        self.plane.server.check()?;
        bench.block_on(replay::remove_pods(&self.client))?;
        if scene == 0 {
            self.floor(bench, &workload, figures)?;
        }
        let bindings = bench.block_on(Bindings::watch(&self.client))?;
        let mut turn = Turn {
            bench,
            client: &self.client,
            bindings,
            scheduler: self.scheduler(bench, origin)?,
            figures,
        };
        turn.first_binding()?;
        turn.before(&workload)?;
        turn.all_at_once(&workload)?;
        if workload.room_after {
            turn.one_by_one(&workload)?;
        }
        Ok(())
    }
}

impl Scheduler {
    fn start(bench: &Bench) -> anyhow::Result<Self> {
        let without = [("disable-admission-plugins", WITHOUT.to_owned())];
        let plane = Plane::start(bench, &Mix::all(Origin::Upstream), Role::Helper, &without)?;
        let client = bench.block_on(Client::connect(&plane.administrator()?, CONNECTIONS))?;
        bench.block_on(replay::namespaces(&client))?;
        let part = |workload: &&Workload| workload.in_quick || !bench.quick;
        let workloads = workloads::ALL.iter().filter(part).copied().collect();
        Ok(Self { plane, client, workloads })
    }

    fn scheduler(&self, bench: &Bench, origin: Origin) -> anyhow::Result<Process> {
        let mix = Mix::all(origin);
        let mut spec = control::spec(Part::Scheduler, &mix, &bench.places, &self.plane.files)?;
        spec.flags(&[("kube-api-qps", QPS.to_owned()), ("kube-api-burst", QPS.to_owned())]);
        bench.server(spec, origin)
    }

    fn floor(
        &self,
        bench: &Bench,
        workload: &Workload,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let count = bench.either(2_000, 300);
        let nodes = workload.size(bench.quick).nodes;
        let binding = replay::bind_all(&self.client, workload.measured, count, nodes);
        let sample = bench.block_on(binding).context("binding without a scheduler")?;
        let name = "floor: this client creates and binds";
        figures.add(name, "", Unit::OpsPerSecond, sample.per_second());
        bench.block_on(replay::remove_pods(&self.client))
    }
}

/// A scheduler that runs, and what it is measured with.
struct Turn<'a> {
    bench: &'a Bench,
    client: &'a Client,
    bindings: Bindings,
    scheduler: Process,
    figures: &'a mut Figures,
}

impl Turn<'_> {
    /// Until the scheduler has read everything and binds a pod that asks for little.
    fn first_binding(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let scout = Pods::new(Batch { kind: Kind::Plain, namespace: "bench" }, "scout")?;
        self.bind(&scout, "scout", 1, None)?;
        let name = "start to the first binding";
        self.figures.add(name, "", Unit::Seconds, started.elapsed().as_secs_f64());
        self.figures.add(name, "", Unit::CpuSeconds, self.scheduler.used()?.as_secs_f64());
        Ok(())
    }

    /// What is to be there before the measured pods.
    fn before(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let count = workload.size(self.bench.quick).before;
        for (index, batch) in workload.before.iter().enumerate() {
            let name = format!("before{index}");
            let pods = Pods::new(*batch, &name)?;
            self.bind(&pods, &name, count, None).context("pods before the measured ones")?;
        }
        self.bench.settle(&self.scheduler)?;
        self.figures.memory("PSS, before", "", self.scheduler.pss()?);
        Ok(())
    }

    fn all_at_once(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let count = workload.size(self.bench.quick).measured;
        let pods = Pods::new(workload.measured, "measured")?;
        let before = self.scheduler.used()?;
        match workload.meanwhile {
            None => self.bind(&pods, "measured", count, None)?,
            Some(kind) => self.bind_while(&pods, "measured", count, kind)?,
        }
        let server = self.scheduler.used()? - before;
        let (latencies, elapsed) = pods.until(&self.bindings.of("measured"));
        self.figures.sample("pods, all at once", &Sample { latencies, elapsed, server });
        self.bench.settle(&self.scheduler)?;
        self.figures.memory("PSS, after", "", self.scheduler.pss()?);
        Ok(())
    }

    fn one_by_one(&mut self, workload: &Workload) -> anyhow::Result<()> {
        let count = self.bench.either(200, 40);
        let pods = Pods::new(workload.measured, "paced")?;
        let before = self.scheduler.used()?;
        self.bind(&pods, "paced", count, Some(PACE))?;
        let used = self.scheduler.used()? - before;
        let (latencies, _) = pods.until(&self.bindings.of("paced"));
        let name = "pods, one every 50 ms";
        self.figures.add(name, "", Unit::OpsPerCpuSecond, rate(count, used));
        self.figures.latency(name, &latencies);
        Ok(())
    }

    /// How long the scheduler may take to bind a batch.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.bench.either(1_200, 40))
    }

    /// Creates pods and waits until they are bound.
    fn bind(
        &mut self,
        pods: &Pods,
        name: &str,
        count: usize,
        pace: Option<Duration>,
    ) -> anyhow::Result<()> {
        let within = self.patience();
        let creating = pods.create_all(self.client, count, pace);
        let binding = self.bindings.wait(&mut self.scheduler, name, count, within);
        self.bench.block_on(futures::future::try_join(creating, binding))?;
        Ok(())
    }

    /// The same while others come.
    fn bind_while(
        &mut self,
        pods: &Pods,
        name: &str,
        count: usize,
        meanwhile: Kind,
    ) -> anyhow::Result<()> {
        let others = Pods::new(Batch { kind: meanwhile, namespace: "meanwhile" }, "meanwhile")?;
        let within = self.patience();
        let creating = pods.create_all(self.client, count, None);
        let binding = self.bindings.wait(&mut self.scheduler, name, count, within);
        let both = futures::future::try_join(creating, binding);
        // Far more than come.
        let disturbing = others.create_all(self.client, usize::MAX, Some(MEANWHILE));
        self.bench.block_on(async {
            match select(std::pin::pin!(both), std::pin::pin!(disturbing)).await {
                Either::Left((done, _)) => done.map(|_| ()),
                Either::Right((failed, _)) => failed.context("pods that come meanwhile"),
            }
        })
    }
}
