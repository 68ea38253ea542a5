//! Many watches under writes: delivery lag, events per second, memory per watch.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use lab::process::Process;
use tokio::task::JoinSet;

use super::memory::Memory;
use super::objects::{self, INDEX, STAMP};
use super::stamps::{Stamps, stamp};
use super::{
    Body, CLIENTS, CONNECTIONS, Call, Client, Identity, Media, NAMESPACE, Plane, named, pods,
};
use crate::bench::Bench;
use crate::drive::{Load, drive, rate};
use crate::figures::{Figures, Unit};
use crate::subjects::api::{Stencil, next_chunk, thousands};

/// Watches that share a connection, where they do.
const SHARING: usize = 50;
/// ConfigMaps that are written while all are watched.
const WATCHED: usize = 100;
/// Between two writes of the paced phase.
const PACE: Duration = Duration::from_millis(200);
/// Clients that write at full speed while everybody watches everything.
const WRITERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a watch may end: servers end those that do not keep up.
const MOST_ATTEMPTS: usize = 100;

/// Everybody watches the same, in both forms; then every node watches its own pods. `started` is the
/// memory of the server now.
pub fn measure(
    bench: &Bench,
    plane: &Plane,
    user: &Identity,
    started: &Memory,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let writer = bench.block_on(Client::connect(user, CONNECTIONS))?;
    let (all, nodes) = (bench.either(1_000, 100), bench.either(pods::NODES, 100));
    let mut watches = Watches { bench, server: &plane.server, user, writer, figures };
    watches.everything(all, Media::Json, Some(started))?;
    watches.everything(all, Media::Protobuf, None)?;
    let before = Memory::of(bench, &plane.server, &watches.writer)?;
    watches.own_pods(nodes, &before)?;
    bench.settle(&plane.server)?;
    figures.memory("PSS, after all of the above", "", plane.server.pss()?);
    Ok(())
}

struct Watches<'a> {
    bench: &'a Bench,
    server: &'a Process,
    user: &'a Identity,
    writer: Client,
    figures: &'a mut Figures,
}

impl Watches<'_> {
    /// `count` watches of the same ConfigMaps: every write is `count` events. With `before`, enters the
    /// memory of a watch.
    fn everything(
        &mut self,
        count: usize,
        media: Media,
        before: Option<&Memory>,
    ) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let write = stamped_config_map()?;
        let writer = self.writer.clone();
        let put = async |client: usize, index: usize, time: Duration| {
            let index = index % WATCHED;
            let body = Body::json(write.fill(&[&format!("{index:08}"), &stamp(time)])?);
            let path = format!("{path}/watched-{index:08}");
            writer.read(client, &Call::with_body(Method::PUT, path, body)).await?;
            Ok(())
        };
        self.make_watched(&path, &write)?;
        let kind = format!("{} watches of the same, {}", thousands(count), named(media));
        let watched = vec![format!("{path}?watch=true"); count];
        let watchers = self.open(watched, media, count.div_ceil(SHARING))?;
        if let Some(before) = before {
            self.enter_memory(&format!("watch, {kind}"), count, before)?;
        }
        let paced = self.bench.either(100, 5);
        let phase = self.bench.block_on(watchers.write(self.server, count, async |clock| {
            let mut ticks = tokio::time::interval(PACE);
            for index in 0..paced {
                ticks.tick().await;
                put(0, index, clock.elapsed()).await?;
            }
            Ok(paced)
        }));
        let per_second = thousands(count * 1_000 / PACE.as_millis() as usize);
        let name = format!("{kind}: {per_second} events per second");
        self.enter(&name, &phase.with_context(|| name.clone())?, false);
        let load = self.load(WRITERS, 1_000, 50);
        let phase = self.bench.block_on(watchers.write(self.server, count, async |clock| {
            let put = async |client, index| put(client, index, clock.elapsed()).await;
            Ok(drive(load, 0, put).await?.done())
        }));
        let name = format!("{kind}: {WRITERS} clients write");
        self.enter(&name, &phase.with_context(|| name.clone())?, true);
        Ok(())
    }

    /// A watch per node, each over a connection of its own, as kubelets have them.
    fn own_pods(&mut self, nodes: usize, before: &Memory) -> anyhow::Result<()> {
        let kind = format!("{} nodes watch their pods, protobuf", thousands(nodes));
        let own =
            |node| format!("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dnode-{node:04}");
        let watchers = self.open((0..nodes).map(own).collect(), Media::Protobuf, nodes)?;
        self.enter_memory(&format!("watch and connection, {kind}"), nodes, before)?;
        let status = Stencil::json(&objects::status(STAMP), &[STAMP])?;
        let load = self.load(CLIENTS, 20_000, 300);
        let (writer, total) = (self.writer.clone(), pods::count(self.bench));
        let phase = self.bench.block_on(watchers.write(self.server, 1, async |clock| {
            let patch = async |client, index: usize| {
                // Pods on the nodes that watch, and on no other.
                let pod = index % nodes + (index / nodes * pods::NODES) % total;
                let path = format!("{}/bench-{pod:08}/status", pods::path());
                let body = Body::strategic_patch(status.fill(&[&stamp(clock.elapsed())])?);
                writer.read(client, &Call::with_body(Method::PATCH, path, body)).await?;
                Ok(())
            };
            Ok(drive(load, 0, patch).await?.done())
        }));
        let name = format!("{kind}: {CLIENTS} clients patch");
        self.enter(&name, &phase.with_context(|| name.clone())?, true);
        Ok(())
    }

    fn load(&self, clients: usize, full: usize, quick: usize) -> Load {
        let within = Duration::from_secs(self.bench.either(30, 3));
        Load { clients, operations: self.bench.either(full, quick), within }
    }

    fn make_watched(&self, path: &str, write: &Stencil) -> anyhow::Result<()> {
        let load = Load { clients: CLIENTS, operations: WATCHED, within: PATIENCE };
        let made = drive(load, 0, async |client, index| {
            let name = format!("{index:08}");
            let existing = Call::get(format!("{path}/watched-{name}"));
            if self.writer.read(client, &existing).await.is_err() {
                let body = Body::json(write.fill(&[&name, &stamp(Duration::ZERO)])?);
                self.writer.read(client, &Call::with_body(Method::POST, path, body)).await?;
            }
            Ok(())
        });
        self.bench.block_on(made)?;
        Ok(())
    }

    /// Opens a watch for every path.
    fn open(
        &self,
        paths: Vec<String>,
        media: Media,
        connections: usize,
    ) -> anyhow::Result<Watchers> {
        let opening = Watchers::open(self.user, &self.writer, paths, media, connections);
        self.bench.block_on(opening).with_context(|| format!("{} watches", named(media)))
    }

    fn enter_memory(&mut self, name: &str, count: usize, before: &Memory) -> anyhow::Result<()> {
        let now = Memory::of(self.bench, self.server, &self.writer)?;
        now.enter_each(self.figures, name, count, before);
        Ok(())
    }

    fn enter(&mut self, name: &str, phase: &Phase, rated: bool) {
        if rated {
            self.figures.add(
                name,
                "",
                Unit::EventsPerSecond,
                rate(phase.lags.len(), phase.elapsed),
            );
        }
        self.figures.add(name, "", Unit::EventsPerCpuSecond, rate(phase.lags.len(), phase.cpu));
        self.figures.latency(name, &phase.lags);
        if rated {
            self.figures.add(name, "watches ended by the server,", Unit::Count, phase.ended as f64);
        }
    }
}

/// Gaps: index, stamp.
fn stamped_config_map() -> anyhow::Result<Stencil> {
    Stencil::json(&objects::stamped(&format!("watched-{INDEX}"), STAMP), &[INDEX, STAMP])
}

/// What came of some writes.
struct Phase {
    /// Of each event, sorted.
    lags: Vec<Duration>,
    /// From the first write to the last event.
    elapsed: Duration,
    /// The server's processor time.
    cpu: Duration,
    /// How often the server ended a watch.
    ended: usize,
}

/// Open watches. They end when this is dropped.
struct Watchers {
    seen: Arc<Seen>,
    /// Times in stamps count from here.
    clock: Instant,
    _streams: JoinSet<()>,
}

/// What has arrived.
#[derive(Default)]
struct Seen(Mutex<Arrived>);

#[derive(Default)]
struct Arrived {
    open: usize,
    /// How often the server ended one.
    ended: usize,
    lags: Vec<Duration>,
    failure: Option<String>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Waits until `enough` of what has arrived.
    async fn until(&self, enough: impl Fn(&Arrived) -> usize, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (have, failure) = {
                let mut arrived = self.lock();
                (enough(&arrived), arrived.failure.take())
            };
            match failure {
                Some(failure) => bail!("a watch ended: {failure}"),
                None if have >= count => return Ok(()),
                None if Instant::now() > deadline => bail!("only {have} of {count} arrived"),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl Watchers {
    async fn open(
        user: &Identity,
        reader: &Client,
        paths: Vec<String>,
        media: Media,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let client = Client::connect(user, connections).await?;
        let (seen, clock, count) = (Arc::new(Seen::default()), Instant::now(), paths.len());
        let from = current_version(reader).await?;
        let mut streams = JoinSet::new();
        for (index, path) in paths.into_iter().enumerate() {
            let (client, seen) = (client.clone(), seen.clone());
            let path = format!("{path}&allowWatchBookmarks=true&resourceVersion={from}");
            let call = Call::get(path).accept(media);
            streams.spawn(async move {
                if let Err(error) = follow(&client, index, &call, &seen, clock).await {
                    seen.lock().failure = Some(format!("{error:#}"));
                }
            });
        }
        seen.until(|arrived| arrived.open, count).await.context("opening watches")?;
        Ok(Self { seen, clock, _streams: streams })
    }

    /// Lets `writes` write, which says how often it did, and waits for `each` events per write.
    async fn write(
        &self,
        server: &Process,
        each: usize,
        writes: impl AsyncFnOnce(Instant) -> anyhow::Result<usize>,
    ) -> anyhow::Result<Phase> {
        let ended_before = self.seen.lock().ended;
        self.seen.lock().lags.clear();
        let (before, started) = (server.used()?, Instant::now());
        let events = each * writes(self.clock).await?;
        self.seen.until(|arrived| arrived.lags.len(), events).await?;
        let (elapsed, cpu) = (started.elapsed(), server.used()? - before);
        let (mut lags, ended) = {
            let mut arrived = self.seen.lock();
            (std::mem::take(&mut arrived.lags), arrived.ended - ended_before)
        };
        lags.sort_unstable();
        Ok(Phase { lags, elapsed, cpu, ended })
    }
}

/// A version from which nothing has to be caught up.
async fn current_version(reader: &Client) -> anyhow::Result<String> {
    let answer = reader.read(0, &Call::get(format!("{}?limit=1", pods::path()))).await?;
    pods::version(&answer)
}

/// One watch, until it is dropped. When the server ends it, it begins anew at the same version, and what
/// had arrived is skipped.
async fn follow(
    client: &Client,
    index: usize,
    call: &Call,
    seen: &Seen,
    clock: Instant,
) -> anyhow::Result<()> {
    let mut arrived_before = 0;
    for attempt in 0..MOST_ATTEMPTS {
        let mut body = client.insist(index, call).await?.into_body();
        match attempt {
            0 => seen.lock().open += 1,
            _ => seen.lock().ended += 1,
        }
        let (mut stamps, mut arrived_now) = (Stamps::default(), 0);
        while let Some(chunk) = next_chunk(&mut body).await? {
            let now = clock.elapsed();
            let mut arrived = seen.lock();
            stamps.feed(&chunk, |sent| {
                arrived_now += 1;
                if arrived_now > arrived_before {
                    arrived.lags.push(now.saturating_sub(sent));
                }
            });
        }
        arrived_before = arrived_before.max(arrived_now);
    }
    bail!("the server ended it {MOST_ATTEMPTS} times")
}
