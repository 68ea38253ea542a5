//! One member, killed again and again while it is written to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::server::{Cluster, get, get_prefix, put};

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    // Frequent checkpoints, so that kills also hit them.
    let flags = ["--snapshot-count=40", "--snapshot-catchup-entries=10"];
    let mut cluster = Cluster::start(1, &flags);
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    let mut attempted: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..5 {
        let client = cluster.ready(0).await;
        for (key, value) in &acknowledged {
            let have = get(&client, key).await.map(|kv| kv.value);
            let have = have.unwrap_or_else(|| panic!("round {round}: {key} is lost"));
            let maybe = attempted.get(key).is_some_and(|v| have == v.as_bytes());
            assert!(have == value.as_bytes() || maybe, "round {round}: {key}");
        }
        acknowledged = get_prefix(&client, "k/")
            .await
            .into_iter()
            .map(|kv| {
                let text = |b: bytes::Bytes| String::from_utf8(b.to_vec()).unwrap();
                (text(kv.key), text(kv.value))
            })
            .collect();
        attempted.clear();
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut done = Vec::new();
                    for i in 0.. {
                        let (key, value) = (format!("k/{w}/{}", i % 20), format!("{round}.{i}"));
                        let ok = put(&client, &key, &value).await.is_ok();
                        done.push((key, value, ok));
                        if !ok {
                            break;
                        }
                    }
                    done
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.kill(0);
        for writer in writers {
            for (key, value, ok) in writer.await.unwrap() {
                if ok {
                    acknowledged.insert(key, value);
                } else {
                    attempted.insert(key, value);
                }
            }
        }
        cluster.start_member(0);
    }
    assert!(acknowledged.len() >= 80);
}

#[tokio::test]
async fn rot_in_a_closed_segment_stops_the_start() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    for i in 0..20 {
        put(&client, &format!("k{i}"), "some value").await.unwrap();
    }
    drop(client);
    cluster.kill(0);
    let segment = cluster.dir.path().join("m0/member/0000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(10).position(|w| w == b"some value").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    cluster.start_member(0);
    super::server::eventually("the member says why it does not start", async || {
        cluster.log(0).contains("is corrupt at byte").then_some(())
    })
    .await;
}
