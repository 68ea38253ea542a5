//! The Lock and Election services, also beside an etcdctl that stands in the same lines by itself.

use std::time::Duration;

use etcd_api::client::Client;
use etcd_api::pb::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest,
};
use etcd_api::pb::v3electionpb::election_client::ElectionClient;
use etcd_api::pb::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use etcd_api::pb::v3lockpb::lock_client::LockClient;
use etcd_api::pb::v3lockpb::{LockRequest, UnlockRequest};
use tonic::{Code, Status};

use super::etcdctl::Etcdctl;
use super::server::{Cluster, eventually};

async fn lock(client: &Client, lease: i64) -> Result<bytes::Bytes, Status> {
    let request = LockRequest { name: "l".into(), lease };
    Ok(LockClient::new(client.channel()).lock(request).await?.into_inner().key)
}

async fn unlock(client: &Client, key: bytes::Bytes) {
    LockClient::new(client.channel()).unlock(UnlockRequest { key }).await.unwrap();
}

/// Waits until so many keys stand in a line.
async fn in_line(client: &Client, line: &'static str, wanted: i64) {
    eventually("the line is so long", async || {
        let all = RangeRequest {
            key: line.into(),
            range_end: etcd_api::prefix_end(line.as_bytes()).into(),
            count_only: true,
            ..Default::default()
        };
        let count = client.kv().range(all).await.unwrap().into_inner().count;
        (count == wanted).then_some(())
    })
    .await;
}

async fn grant(client: &Client) -> i64 {
    let request = LeaseGrantRequest { ttl: 600, id: 0 };
    client.lease().lease_grant(request).await.unwrap().into_inner().id
}

async fn revoke(client: &Client, id: i64) {
    client.lease().lease_revoke(LeaseRevokeRequest { id }).await.unwrap();
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_in_order() {
    let cluster = Cluster::start(3, &[]);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    let holder = cluster.client(0);
    let first = lock(&holder, 0).await.unwrap();
    assert!(first.starts_with(b"l/"));
    let (tx, mut turns) = tokio::sync::mpsc::channel(8);
    for member in 1..3 {
        let (waiting, tx) = (cluster.client(member), tx.clone());
        tokio::spawn(async move {
            let key = lock(&waiting, 0).await.unwrap();
            tx.send((member, key)).await.unwrap();
        });
        // So that the order is known.
        in_line(&holder, "l/", 1 + member as i64).await;
    }
    assert!(turns.try_recv().is_err(), "the lock is held");
    unlock(&holder, first).await;
    let (who, key) = turns.recv().await.unwrap();
    assert_eq!(who, 1);
    assert!(turns.try_recv().is_err(), "one at a time");
    unlock(&holder, key).await;
    assert_eq!(turns.recv().await.unwrap().0, 2);
}

#[tokio::test]
async fn who_gives_up_leaves_the_line_and_a_lost_lease_gives_the_turn_away() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let lease = grant(&client).await;
    let held = lock(&client, lease).await.unwrap();
    assert_eq!(lock(&client, lease).await.unwrap(), held, "the same lease has it already");
    let gave_up = tokio::time::timeout(Duration::from_millis(300), lock(&client, 0)).await;
    assert!(gave_up.is_err(), "the lock is held");
    in_line(&client, "l/", 1).await;
    let next = cluster.client(0);
    let waiting = tokio::spawn(async move { lock(&next, 0).await });
    in_line(&client, "l/", 2).await;
    revoke(&client, lease).await;
    waiting.await.unwrap().unwrap();

    // A place in line that its lease takes away.
    let short = grant(&client).await;
    let loser = cluster.client(0);
    let lost = tokio::spawn(async move { lock(&loser, short).await });
    in_line(&client, "l/", 2).await;
    revoke(&client, short).await;
    let all = DeleteRangeRequest { key: "l/".into(), range_end: "l0".into(), prev_kv: false };
    client.kv().delete_range(all).await.unwrap();
    let e = lost.await.unwrap().unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::Unknown, "mutex: session is expired"));
    let e = lock(&client, short).await.unwrap_err();
    assert_eq!(e.message(), "etcdserver: requested lease not found");
}

#[tokio::test]
async fn leaders_are_elected_proclaim_and_resign() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let elections = || ElectionClient::new(client.channel());
    let name = || LeaderRequest { name: "e".into() };
    let campaign = |value: &'static str, lease| CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let e = elections().leader(name()).await.unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::Unknown, "election: no leader"));
    let mut seen = elections().observe(name()).await.unwrap().into_inner();
    let mut next = async || value(seen.message().await.unwrap().unwrap());
    let lease = grant(&client).await;
    let leader = elections().campaign(campaign("a", lease)).await.unwrap().into_inner().leader;
    assert_eq!(next().await, "a");
    let proclaim = |value: &'static str, leader: &Option<LeaderKey>| ProclaimRequest {
        leader: leader.clone(),
        value: value.into(),
    };
    elections().proclaim(proclaim("a2", &leader)).await.unwrap();
    assert_eq!(next().await, "a2");
    // Who campaigns again with another value proclaims it.
    elections().campaign(campaign("a3", lease)).await.unwrap();
    assert_eq!(next().await, "a3");
    assert_eq!(value(elections().leader(name()).await.unwrap().into_inner()), "a3");

    let (mut other, second) = (elections(), grant(&client).await);
    let waiting = tokio::spawn(async move { other.campaign(campaign("b", second)).await });
    in_line(&client, "e/", 2).await;
    elections().resign(ResignRequest { leader: leader.clone() }).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(next().await, "b");
    let e = elections().proclaim(proclaim("late", &leader)).await.unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::Unknown, "election: not leader"));
    let e = elections().proclaim(proclaim("x", &None)).await.unwrap_err();
    assert_eq!(e.message(), "\"leader\" field must be provided");
}

fn value(r: LeaderResponse) -> String {
    String::from_utf8(r.kv.unwrap().value.to_vec()).unwrap()
}

#[tokio::test]
async fn etcdctl_and_the_service_stand_in_one_line() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    let held = lock(&client, 0).await.unwrap();
    let mut command = Etcdctl(&cluster).command(&["lock", "l", "echo", "mine"]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    in_line(&client, "l/", 2).await;
    unlock(&client, held).await;
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "mine\n");
    // It has let go again.
    lock(&client, 0).await.unwrap();
}
