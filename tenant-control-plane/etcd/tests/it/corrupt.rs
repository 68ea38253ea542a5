//! A member whose state is not what its log says.

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
