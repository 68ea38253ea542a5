//! Three members.

use std::time::{Duration, Instant};

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{
    CompactionRequest, HashKvRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MoveLeaderRequest, StatusRequest,
};

use super::api::http_get;
use super::server::{Cluster, eventually, get, get_prefix, put};

const FAST: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

async fn hashes(cluster: &Cluster, members: &[usize]) -> Vec<u32> {
    let mut out = Vec::new();
    for i in members {
        let client = cluster.ready(*i).await;
        let r = client.maintenance().hash_kv(HashKvRequest { revision: 0 }).await;
        out.push(r.unwrap().into_inner().hash);
    }
    out
}

/// The first entry that a member's log still has.
async fn first_index(cluster: &Cluster, i: usize) -> u64 {
    let metrics = http_get(&cluster.metrics_address(i), "/metrics").await;
    let line = metrics.lines().find_map(|l| l.strip_prefix("etcd_debugging_log_first_index "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_leaders_death_loses_nothing_and_it_catches_up_by_snapshot() {
    let flags = [FAST[0], FAST[1], "--snapshot-count=30", "--snapshot-catchup-entries=2"];
    let mut cluster = Cluster::start(3, &flags);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    let leader = cluster.leader().await;
    let client = cluster.client((leader + 1) % 3);
    for i in 0..50 {
        put(&client, &format!("before/{i}"), "v").await.unwrap();
    }
    cluster.kill(leader);
    let died = Instant::now();
    eventually("writes go on", async || put(&client, "after", "v").await.ok()).await;
    let outage = died.elapsed();
    println!("writes went on {outage:?} after the leader's death");
    assert!(outage < Duration::from_secs(10));
    // Until nobody's log holds any more what the dead one needs.
    let needed = first_index(&cluster, (leader + 1) % 3).await + 60;
    let mut acknowledged = 0;
    let mut i = 0;
    while first_index(&cluster, (leader + 1) % 3).await < needed
        || first_index(&cluster, (leader + 2) % 3).await < needed
    {
        acknowledged += usize::from(put(&client, &format!("down/{i}"), "v").await.is_ok());
        i += 1;
    }
    assert_eq!(get_prefix(&client, "before/").await.len(), 50);
    let down = get_prefix(&client, "down/").await.len();
    assert!(down >= acknowledged);
    let compact = CompactionRequest { revision: 100, physical: false };
    client.kv().compact(compact).await.unwrap();

    cluster.start_member(leader);
    let revived = cluster.ready(leader).await;
    assert_eq!(get_prefix(&revived, "down/").await.len(), down);
    assert!(get(&revived, "after").await.is_some());
    let all = hashes(&cluster, &[0, 1, 2]).await;
    assert!(all[0] == all[1] && all[1] == all[2], "{all:?}");
    let log = cluster.log(leader);
    assert!(log.contains("received a snapshot"), "{log}");
}

#[tokio::test]
async fn every_member_serves_and_a_restart_of_all_keeps_the_data() {
    let mut cluster = Cluster::start(3, &[]);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    // Linearizable: what one member acknowledged, the next one shows.
    for round in 0..30 {
        let (w, r) = (round % 3, (round + 1) % 3);
        let revision = put(&cluster.client(w), "k", &round.to_string()).await.unwrap();
        let kv = get(&cluster.client(r), "k").await.unwrap();
        assert_eq!(kv.value, round.to_string().as_bytes());
        assert_eq!(kv.mod_revision, revision);
    }
    let mut api = cluster.client(0).cluster();
    let list = api.member_list(MemberListRequest { linearizable: true });
    let members = list.await.unwrap().into_inner().members;
    let mut names: Vec<_> = members.iter().map(|m| m.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["m0", "m1", "m2"]);
    assert!(members.iter().all(|m| !m.is_learner && !m.client_ur_ls.is_empty()));
    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.start_member(i);
    }
    for i in 0..3 {
        let client = cluster.ready(i).await;
        assert_eq!(get(&client, "k").await.unwrap().value, "29");
    }
}

#[tokio::test]
async fn leadership_moves_on_request_and_on_a_clean_stop() {
    let mut cluster = Cluster::start(3, &[]);
    for i in 0..3 {
        cluster.ready(i).await;
    }
    let old = cluster.leader().await;
    let target = (old + 1) % 3;
    let status = cluster.client(target).maintenance().status(StatusRequest {}).await;
    let target_id = status.unwrap().into_inner().header.unwrap().member_id;
    let client = cluster.client(old);
    let r = MoveLeaderRequest { target_id };
    client.maintenance().move_leader(r).await.unwrap();
    assert_eq!(cluster.leader().await, target);
    let all = cluster.client_of_all();
    let started = Instant::now();
    assert!(cluster.stop(target));
    eventually("writes go on", async || put(&all, "k", "v").await.ok()).await;
    println!("a clean stop of the leader held up writes for {:?}", started.elapsed());
}

#[tokio::test]
async fn members_join_with_and_without_a_vote_and_leave() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.ready(0).await;
    for i in 0..30 {
        put(&client, &format!("k{i}"), "v").await.unwrap();
    }
    let mut ids = Vec::new();
    for is_learner in [false, true] {
        let (i, url) = cluster.reserve_member();
        let r = MemberAddRequest { peer_ur_ls: vec![url], is_learner };
        let added = client.cluster().member_add(r.clone()).await.unwrap().into_inner();
        let again = client.cluster().member_add(r).await.unwrap_err();
        assert_eq!(EtcdError::of(&again), Some(EtcdError::PeerUrlExists));
        // A member that has not started costs no quorum.
        put(&client, "meanwhile", "v").await.unwrap();
        cluster.start_member(i);
        cluster.ready(i).await;
        ids.push(added.member.unwrap().id);
    }
    let learner = ids[1];
    eventually("the learner is promoted", async || {
        let r = MemberPromoteRequest { id: learner };
        let answer = client.cluster().member_promote(r).await;
        answer.inspect_err(|e| println!("not promoted: {e}")).ok()
    })
    .await;
    let third = cluster.client(2);
    assert_eq!(get_prefix(&third, "k").await.len(), 30);
    let voters = eventually("all have a vote", async || {
        let r = MemberListRequest { linearizable: true };
        let list = third.cluster().member_list(r).await.ok()?.into_inner();
        let voters = list.members.iter().filter(|m| !m.is_learner).count();
        (voters == 3).then_some(voters)
    })
    .await;
    assert_eq!(voters, 3);
    let unknown = MemberRemoveRequest { id: 1 };
    let e = client.cluster().member_remove(unknown).await.unwrap_err();
    assert_eq!(EtcdError::of(&e), Some(EtcdError::MemberNotFound));
    // Asked of a follower, which passes it on.
    let r = MemberRemoveRequest { id: learner };
    let left = cluster.client(1).cluster().member_remove(r).await.unwrap();
    assert_eq!(left.into_inner().members.len(), 2);
    put(&client, "still", "here").await.unwrap();
}
