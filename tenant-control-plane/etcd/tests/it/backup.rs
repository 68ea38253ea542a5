//! `etcdctl snapshot save`, `status` and `restore`: a new cluster begins from what another one was.

use etcd_api::pb::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest, PutRequest,
    RangeRequest,
};

use super::etcdctl::Etcdctl;
use super::server::{Cluster, eventually, get, get_prefix, put};

fn etcdctl(args: &[&str]) -> Result<String, String> {
    let out = std::process::Command::new("etcdctl").env("ETCDCTL_API", "3").args(args).output();
    let out = out.expect("install Debian's package etcd-client");
    match out.status.success() {
        true => Ok(String::from_utf8(out.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// Restores a snapshot for each member of a cluster that has not been started.
fn restore(snapshot: &str, cluster: &Cluster, members: usize) {
    for i in 0..members {
        let name = format!("--name=m{i}");
        let dir = format!("--data-dir={}", cluster.data_dir(i).display());
        let all = format!("--initial-cluster={}", cluster.initial_cluster());
        let token = format!("--initial-cluster-token={}", cluster.token());
        let urls = format!("--initial-advertise-peer-urls={}", cluster.peer_url(i));
        etcdctl(&["snapshot", "restore", snapshot, &name, &dir, &all, &token, &urls]).unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_is_restored_into_a_new_cluster_which_others_can_join() {
    let old = Cluster::start(1, &[]);
    let client = old.ready(0).await;
    for i in 0..500 {
        put(&client, &format!("k{i:03}"), &format!("first {i}")).await.unwrap();
    }
    put(&client, "long", &"x".repeat(50_000)).await.unwrap();
    let compacted = put(&client, "k001", "second").await.unwrap();
    let compact = CompactionRequest { revision: compacted, physical: false };
    client.kv().compact(compact).await.unwrap();
    let before = put(&client, "k002", "second").await.unwrap();
    Etcdctl(&old).run(&["del", "k003"]);
    let lease = LeaseGrantRequest { ttl: 600, id: 77 };
    client.lease().lease_grant(lease).await.unwrap();
    let leased =
        PutRequest { key: "leased".into(), value: "l".into(), lease: 77, ..Default::default() };
    client.kv().put(leased).await.unwrap();
    let ctl = Etcdctl(&old);
    ctl.run(&["role", "add", "r"]);
    let last = put(&client, "last", "").await.unwrap();
    let path = old.dir.path().join("snapshot.db");
    let path = path.to_str().unwrap();
    ctl.run(&["snapshot", "save", path]);

    let status: serde_json::Value =
        serde_json::from_str(&etcdctl(&["snapshot", "status", path, "-w", "json"]).unwrap())
            .unwrap();
    assert_eq!(status["revision"], last);
    // Versions, of which the tool counts the keys: 500 put once, four more puts, one delete.
    assert!(status["totalKey"].as_i64().unwrap() >= 502, "{status}");

    let mut new = Cluster::prepare(3, &["--snapshot-count=5"]);
    restore(path, &new, 3);
    for i in 0..3 {
        new.start_member(i);
    }
    let client = new.ready(0).await;
    assert_eq!(get_prefix(&client, "k").await.len(), 499);
    let now = get(&client, "k002").await.unwrap();
    assert_eq!((&now.value[..], now.mod_revision, now.version), (&b"second"[..], before, 2));
    assert!(get(&client, "k003").await.is_none());
    assert_eq!(get(&client, "long").await.unwrap().value.len(), 50_000);
    let at = |revision| RangeRequest { key: "k002".into(), revision, ..Default::default() };
    let past = client.kv().range(at(before - 1)).await.unwrap().into_inner();
    assert_eq!(&past.kvs[0].value[..], b"first 2", "history is there");
    assert!(client.kv().range(at(compacted - 1)).await.is_err(), "but not what was compacted");
    let ask = LeaseTimeToLiveRequest { id: 77, keys: true };
    let time = client.lease().lease_time_to_live(ask).await.unwrap().into_inner();
    assert_eq!((time.granted_ttl, &time.keys[0][..]), (600, &b"leased"[..]));
    let ctl = Etcdctl(&new);
    assert_eq!(ctl.run(&["role", "list"]), "r\n");
    assert_eq!(put(&client, "after", "x").await.unwrap(), last + 1);

    // Who joins gets what was restored, and it is there after a restart of everybody.
    let (i, url) = new.reserve_member();
    let add = MemberAddRequest { peer_ur_ls: vec![url], is_learner: false };
    client.cluster().member_add(add).await.unwrap();
    new.start_member(i);
    new.ready(i).await;
    for i in 0..4 {
        new.kill(i);
    }
    for i in 0..4 {
        new.start_member(i);
    }
    for i in 0..4 {
        let client = new.ready(i).await;
        eventually("everything is there", async || {
            (get_prefix(&client, "k").await.len() == 499).then_some(())
        })
        .await;
        assert!(!new.data_dir(i).join("member/snap").exists(), "taken over once");
    }
}

#[tokio::test]
async fn the_data_directory_of_a_running_upstream_etcd_is_refused() {
    let old = Cluster::start(1, &[]);
    let client = old.ready(0).await;
    put(&client, "k", "v").await.unwrap();
    let path = old.dir.path().join("snapshot.db");
    Etcdctl(&old).run(&["snapshot", "save", path.to_str().unwrap()]);
    // As upstream's directory looks: its log goes on where the file ends.
    let mut new = Cluster::prepare(1, &[]);
    let snap = new.data_dir(0).join("member/snap");
    std::fs::create_dir_all(&snap).unwrap();
    std::fs::copy(&path, snap.join("db")).unwrap();
    new.start_member(0);
    eventually("it says why", async || {
        new.log(0).contains("data directory of a running etcd of another make").then_some(())
    })
    .await;
    assert!(snap.join("db").exists(), "nothing is lost");
}
