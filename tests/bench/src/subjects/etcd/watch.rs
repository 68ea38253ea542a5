//! Many watches under writes: delivery lag, events per second, memory per watch.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::watch_request::RequestUnion;
use etcd_api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest};
use lab::process::Process;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::{Member, VALUE, client, requests};
use crate::bench::Bench;
use crate::drive::{Load, drive, rate};
use crate::figures::{Figures, Unit};

/// gRPC streams.
const STREAMS: usize = 100;
/// Watches of each, one per key: a put makes one event on every stream.
const WATCHES: usize = 100;
/// Connections that carry the streams.
const CONNECTIONS: usize = 10;
/// Between two puts of the paced phase.
const PACE: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens the watches, then puts: first at a pace, then as fast as it goes.
pub fn measure(bench: &Bench, member: &Member, figures: &mut Figures) -> anyhow::Result<()> {
    let process = &member.process;
    bench.settle(process)?;
    let before = process.pss()?;
    let watchers = Watchers { seen: Arc::new(Seen::new()), clock: Instant::now() };
    // Ends them when it is dropped.
    let _streams = bench.block_on(watchers.open())?;
    bench.settle(process)?;
    let opened = process.pss()?;
    figures.memory("PSS, all watches idle", "", opened);
    let each = opened.saturating_sub(before) as f64 / (STREAMS * WATCHES) as f64;
    figures.add("PSS per idle watch", "", Unit::Bytes, each);

    let writer = client(4)?;
    // Unmeasured, for connections and caches.
    bench.block_on(watchers.write(process, paced(&writer, 20), 20))?;
    for (name, puts, clients) in [
        ("paced: 50 puts, 5,000 events per second", bench.either(1_000, 100), None),
        ("at full speed: 16 clients put", bench.either(5_000, 500), Some(16)),
    ] {
        let phase = match clients {
            None => bench.block_on(watchers.write(process, paced(&writer, puts), puts)),
            Some(clients) => {
                bench.block_on(watchers.write(process, flat_out(&writer, clients, puts), puts))
            }
        };
        let Phase { lags, elapsed, cpu } = phase.context(name)?;
        if clients.is_some() {
            figures.add(name, "", Unit::EventsPerSecond, rate(lags.len(), elapsed));
        }
        figures.add(name, "", Unit::EventsPerCpuSecond, rate(lags.len(), cpu));
        figures.latency(name, &lags);
    }
    bench.settle(process)?;
    figures.memory("PSS, after all events", "", process.pss()?);
    Ok(())
}

/// What came of some writes.
struct Phase {
    /// Of each event, sorted.
    lags: Vec<Duration>,
    /// From the first put to the last event.
    elapsed: Duration,
    /// The server's processor time.
    cpu: Duration,
}

struct Watchers {
    seen: Arc<Seen>,
    /// Times in values count from here.
    clock: Instant,
}

/// What has arrived.
struct Seen(Mutex<Arrived>);

#[derive(Default)]
struct Arrived {
    created: usize,
    lags: Vec<Duration>,
    failure: Option<String>,
}

impl Seen {
    fn new() -> Self {
        Self(Mutex::default())
    }

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
    async fn open(&self) -> anyhow::Result<JoinSet<()>> {
        let client = client(CONNECTIONS)?;
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let (client, seen, clock) = (client.clone(), self.seen.clone(), self.clock);
            streams.spawn(async move {
                if let Err(error) = follow(client, &seen, clock).await {
                    seen.lock().failure = Some(format!("{error:#}"));
                }
            });
        }
        let created = |arrived: &Arrived| arrived.created;
        self.seen.until(created, STREAMS * WATCHES).await.context("opening watches")?;
        Ok(streams)
    }

    /// Lets `puts` put as often as it says, and waits for all events.
    async fn write(
        &self,
        process: &Process,
        puts: impl AsyncFnOnce(Instant) -> anyhow::Result<()>,
        count: usize,
    ) -> anyhow::Result<Phase> {
        self.seen.lock().lags.clear();
        let (before, started) = (process.used()?, Instant::now());
        puts(self.clock).await?;
        self.seen.until(|arrived| arrived.lags.len(), count * STREAMS).await?;
        let (elapsed, cpu) = (started.elapsed(), process.used()? - before);
        let mut lags = std::mem::take(&mut self.seen.lock().lags);
        lags.sort_unstable();
        Ok(Phase { lags, elapsed, cpu })
    }
}

/// One stream with its watches, until it is dropped.
async fn follow(client: Client, seen: &Seen, clock: Instant) -> anyhow::Result<()> {
    // The stream stays open as long as the sender lives.
    let (sender, receiver) = mpsc::channel(WATCHES);
    for index in 0..WATCHES {
        let create = WatchCreateRequest { key: key(index).into(), ..Default::default() };
        sender
            .send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
            .await?;
    }
    let mut answers = client.watch().watch(ReceiverStream::new(receiver)).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let now = clock.elapsed();
        if answer.canceled {
            bail!("cancelled: {}", answer.cancel_reason);
        }
        let mut arrived = seen.lock();
        arrived.created += usize::from(answer.created);
        for event in answer.events {
            let value = event.kv.context("an event without a key")?.value;
            arrived.lags.push(now.saturating_sub(sent(&value)?));
        }
    }
    bail!("the server closed the stream")
}

fn paced(client: &Client, count: usize) -> impl AsyncFnOnce(Instant) -> anyhow::Result<()> {
    async move |clock| {
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for index in 0..count {
            ticks.tick().await;
            put(client, clock, index).await?;
        }
        Ok(())
    }
}

fn flat_out(
    client: &Client,
    clients: usize,
    operations: usize,
) -> impl AsyncFnOnce(Instant) -> anyhow::Result<()> {
    async move |clock| {
        let load = Load { clients, operations, within: PATIENCE };
        let done = drive(load, 0, async |_, index| put(client, clock, index).await).await?.done();
        anyhow::ensure!(done == operations, "only {done} of {operations} puts in {PATIENCE:?}");
        Ok(())
    }
}

async fn put(client: &Client, clock: Instant, index: usize) -> anyhow::Result<()> {
    client.kv().put(requests::put(&key(index % WATCHES), stamped(clock))).await?;
    Ok(())
}

fn key(index: usize) -> String {
    format!("/registry/watched/bench-{index:08}")
}

/// A value that says when it was sent.
fn stamped(clock: Instant) -> Bytes {
    let mut value = BytesMut::zeroed(VALUE);
    let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
    value[..8].copy_from_slice(&now.to_le_bytes());
    value.freeze()
}

fn sent(value: &[u8]) -> anyhow::Result<Duration> {
    let stamp = value.first_chunk().context("an event without its value")?;
    Ok(Duration::from_nanos(u64::from_le_bytes(*stamp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_when_they_were_sent() {
        let clock = Instant::now() - Duration::from_secs(5);
        let value = stamped(clock);
        assert_eq!(value.len(), VALUE);
        let sent = sent(&value).unwrap();
        assert!(sent >= Duration::from_secs(5) && sent <= clock.elapsed());
    }
}
