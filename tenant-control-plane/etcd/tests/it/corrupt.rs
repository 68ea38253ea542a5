//! A member whose state is not what its log says.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use etcd::storage::checkpoint;
use etcd::storage::disk::{Disk, Host};
use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{AlarmRequest, AlarmType, RangeRequest};

use super::server::{Cluster, eventually, get, put};

/// Changes what a stopped member has stored about a key, with all checksums right.
fn tamper(cluster: &Cluster, member: usize, key: &str) {
    let dir = cluster.data_dir(member).join("member");
    let disk: Arc<dyn Disk> = Arc::new(Host);
    let (mut head, mut keys) = (None, Vec::new());
    assert!(checkpoint::read(&Host, &dir, |h| head = Some(h), |k| keys.push(k)).unwrap());
    let victim = keys.iter_mut().find(|k| k.key == key.as_bytes()).unwrap();
    victim.versions.last_mut().unwrap().version += 1;
    let mut writer = checkpoint::Writer::create(&disk, &dir, &head.unwrap()).unwrap();
    writer.keys(keys).unwrap();
    writer.finish().unwrap();
}

#[tokio::test]
async fn a_member_that_differs_raises_corrupt_and_serves_no_more() {
    let mut cluster = Cluster::start(3, &["--snapshot-count=5", "--snapshot-catchup-entries=100"]);
    let client = cluster.ready(0).await;
    put(&client, "k", "1").await.unwrap();
    // Once begun, and stored, the digest goes on over a restart.
    let wrong = (cluster.leader().await + 1) % 3;
    let checkpoint = |cluster: &Cluster| {
        let dir = cluster.data_dir(wrong).join("member");
        let (mut begun, mut there) = (false, false);
        let found = checkpoint::read(
            &Host,
            &dir,
            |head| begun = !head.digest.is_empty(),
            |key| there |= key.key[..] == *b"k",
        );
        (found.ok()? && begun && there).then_some(())
    };
    let others = (wrong + 1) % 3;
    let healthy = cluster.ready(others).await;
    eventually("a checkpoint has the digest", async || {
        put(&healthy, "more", "x").await.unwrap();
        checkpoint(&cluster)
    })
    .await;
    assert!(cluster.stop(wrong));
    tamper(&cluster, wrong, "k");
    cluster.start_member(wrong);
    cluster.ready(wrong).await;
    put(&healthy, "k", "2").await.unwrap();
    let asked = RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    let damaged = cluster.client(wrong);
    eventually("the damaged member refuses", async || {
        put(&healthy, "more", "y").await.unwrap();
        let answer = damaged.kv().range(asked.clone()).await;
        answer.err().filter(|e| EtcdError::of(e) == Some(EtcdError::Corrupt))
    })
    .await;
    let e = put(&damaged, "k", "3").await.unwrap_err();
    assert_eq!(EtcdError::of(&e), Some(EtcdError::Corrupt));
    // The majority goes on, and says whom it is about.
    put(&healthy, "k", "4").await.unwrap();
    assert_eq!(&get(&healthy, "k").await.unwrap().value[..], b"4");
    let alarms = healthy.maintenance().alarm(AlarmRequest::default()).await.unwrap();
    let alarms = alarms.into_inner().alarms;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].alarm, AlarmType::Corrupt as i32);
}

/// Changes a byte of a value, wherever a stopped or running member has stored it. Returns how often.
fn rot(cluster: &Cluster, member: usize, value: &str) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(cluster.data_dir(member).join("member")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(value.as_bytes())).collect();
        for at in &places {
            bytes[at + value.len() / 2] ^= 4;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&bytes[*at..at + value.len()], *at as u64).unwrap();
        }
        found += places.len();
    }
    found
}

#[tokio::test]
async fn a_member_whose_disk_rots_says_so_and_leaves_it_to_the_others() {
    let cluster = Cluster::start(3, &[]);
    let client = cluster.ready(0).await;
    let leader = cluster.leader().await;
    put(&client, "k", "a value that will rot").await.unwrap();
    put(&client, "other", "sound").await.unwrap();
    let damaged = cluster.ready(leader).await;
    assert_eq!(rot(&cluster, leader, "a value that will rot"), 1);
    let asked = RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    let e = damaged.kv().range(asked.clone()).await.unwrap_err();
    assert_eq!(e.code(), tonic::Code::DataLoss, "{e}");
    eventually("it refuses", async || {
        let answer = damaged.kv().range(asked.clone()).await;
        answer.err().filter(|e| EtcdError::of(e) == Some(EtcdError::Corrupt))
    })
    .await;
    let healthy = cluster.client((leader + 1) % 3);
    eventually("another one leads", async || (cluster.leader().await != leader).then_some(()))
        .await;
    put(&healthy, "other", "still").await.unwrap();
    assert_eq!(&get(&healthy, "k").await.unwrap().value[..], b"a value that will rot");
}

#[tokio::test]
async fn a_single_member_serves_what_has_not_rotted() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    put(&client, "k", "a value that will rot").await.unwrap();
    put(&client, "other", "sound").await.unwrap();
    assert_eq!(rot(&cluster, 0, "a value that will rot"), 1);
    let asked = RangeRequest { key: "k".into(), ..Default::default() };
    let e = client.kv().range(asked).await.unwrap_err();
    assert_eq!(e.code(), tonic::Code::DataLoss, "{e}");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(&get(&client, "other").await.unwrap().value[..], b"sound");
    put(&client, "other", "still").await.unwrap();
}
