//! How fast it is, roughly. Not a check: `cargo test -p etcd --test it load -- --ignored --nocapture`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::server::{Cluster, get, put};

async fn measure(cluster: &Cluster, what: &str, clients: usize, reads: bool) {
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(3);
    let workers: Vec<_> = (0..clients)
        .map(|w| {
            let (client, done) = (cluster.client(w % 3 % cluster.members()), Arc::clone(&done));
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                while Instant::now() < until {
                    let began = Instant::now();
                    let i = done.fetch_add(1, Ordering::Relaxed);
                    if reads {
                        get(&client, "k0").await;
                    } else {
                        put(&client, &format!("k{}", i % 10_000), &"v".repeat(256)).await.unwrap();
                    }
                    slowest = slowest.max(began.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for w in workers {
        slowest = slowest.max(w.await.unwrap());
    }
    let n = done.load(Ordering::Relaxed);
    println!("{what}, {clients} clients: {} per second, slowest {slowest:?}", n / 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, checks nothing"]
async fn load() {
    for members in [1, 3] {
        let cluster = Cluster::start(members, &[]);
        for i in 0..members {
            cluster.ready(i).await;
        }
        println!("{members} members");
        for clients in [1, 64, 256] {
            measure(&cluster, "puts", clients, false).await;
        }
        for clients in [1, 64] {
            measure(&cluster, "linearizable gets", clients, true).await;
        }
    }
}
