//! Members die and freeze at random while clients write and read. Each key has one writer that
//! counts up, so a linearizable read must never show less than what was acknowledged before it
//! began, nor more than what was attempted before it ended.
//!
//! `CHAOS_SECONDS=60 cargo test -p etcd --test it chaos -- --ignored --nocapture`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_api::pb::etcdserverpb::{CompactionRequest, HashKvRequest, RangeRequest};
use rand::Rng;

use super::server::{Cluster, put};

const WRITERS: usize = 4;

#[derive(Default)]
struct Counter {
    acknowledged: AtomicU64,
    attempted: AtomicU64,
}

async fn write(
    cluster_client: etcd_api::client::Client,
    w: usize,
    c: Arc<Counter>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let n = c.attempted.fetch_add(1, Ordering::SeqCst) + 1;
        let (key, value) = (format!("c/{w}"), n.to_string());
        let done = put(&cluster_client, &key, &value);
        match tokio::time::timeout(Duration::from_secs(3), done).await {
            Ok(Ok(_)) => {
                c.acknowledged.fetch_max(n, Ordering::SeqCst);
            }
            // It may still happen, later than the next one: a fresh key would be needed to go on
            // counting. Waiting out the request's own time-out is enough.
            _ => tokio::time::sleep(Duration::from_secs(8)).await,
        }
    }
}

async fn read(
    client: etcd_api::client::Client,
    c: Vec<Arc<Counter>>,
    stop: Arc<AtomicBool>,
) -> u64 {
    let mut checked = 0;
    while !stop.load(Ordering::Relaxed) {
        for (w, counter) in c.iter().enumerate() {
            let floor = counter.acknowledged.load(Ordering::SeqCst);
            let r = RangeRequest { key: format!("c/{w}").into(), ..Default::default() };
            let answer =
                tokio::time::timeout(Duration::from_secs(3), async { client.kv().range(r).await });
            let Ok(Ok(answer)) = answer.await else { continue };
            let ceiling = counter.attempted.load(Ordering::SeqCst);
            let kvs = answer.into_inner().kvs;
            let value = kvs
                .first()
                .map_or(0, |kv| std::str::from_utf8(&kv.value).unwrap().parse().unwrap());
            assert!((floor..=ceiling).contains(&value), "{value} not in {floor}..={ceiling}");
            checked += 1;
        }
    }
    checked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as long as it is told to"]
async fn chaos() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(30, |s| s.parse().unwrap());
    let flags = [
        "--snapshot-count=100",
        "--snapshot-catchup-entries=20",
        "--heartbeat-interval=50",
        "--election-timeout=500",
    ];
    let mut cluster = Cluster::start(3, &flags);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let counters: Vec<Arc<Counter>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let mut writers = Vec::new();
    for (w, c) in counters.iter().enumerate() {
        let task = write(cluster.client_of_all(), w, Arc::clone(c), Arc::clone(&stop));
        writers.push(tokio::spawn(task));
    }
    let readers: Vec<_> = (0..3)
        .map(|i| tokio::spawn(read(cluster.client(i), counters.clone(), Arc::clone(&stop))))
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut faults = 0;
    while Instant::now() < until {
        let victim = rand::rng().random_range(0..3);
        let pause = Duration::from_millis(rand::rng().random_range(50..1500));
        if rand::rng().random_bool(0.2) {
            for i in 0..3 {
                cluster.kill(i);
            }
            for i in 0..3 {
                cluster.start_member(i);
            }
        } else if rand::rng().random_bool(0.7) {
            cluster.kill(victim);
            tokio::time::sleep(pause).await;
            cluster.start_member(victim);
        } else {
            cluster.freeze(victim, true);
            tokio::time::sleep(pause).await;
            cluster.freeze(victim, false);
        }
        faults += 1;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(200..2500))).await;
        let compact = CompactionRequest {
            revision: counters[0].acknowledged.load(Ordering::SeqCst) as i64 / 2,
            physical: false,
        };
        let mut kv = cluster.client((victim + 1) % 3).kv();
        let _ = tokio::time::timeout(Duration::from_secs(2), kv.compact(compact)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for w in writers {
        w.await.unwrap();
    }
    let mut checked = 0;
    for r in readers {
        checked += r.await.unwrap();
    }
    let mut hashes = Vec::new();
    for i in 0..3 {
        let client = cluster.ready(i).await;
        let r = client.maintenance().hash_kv(HashKvRequest { revision: 0 }).await.unwrap();
        hashes.push((r.get_ref().hash, r.get_ref().hash_revision));
    }
    assert!(hashes.iter().all(|h| *h == hashes[0]), "{hashes:?}");
    let written: u64 = counters.iter().map(|c| c.acknowledged.load(Ordering::SeqCst)).sum();
    println!("{faults} faults, {written} writes acknowledged, {checked} reads checked");
}
