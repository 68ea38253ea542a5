//! Watches, and what they survive.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, config_map};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn watches_replay_select_and_mark() {
    let mut cluster = Cluster::start().await;
    let c = cluster.admin();
    let start =
        c.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    c.post(MAPS, &config_map("a", "1")).await.expect(201);
    c.patch(&format!("{MAPS}/a"), &json!({"metadata": {"labels": {"v": "2"}}})).await.expect(200);
    c.delete(&format!("{MAPS}/a")).await.expect(200);
    let mut all = c.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    for wanted in ["ADDED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(all.line().await, wanted);
    }
    // Leaving a selection looks like a deletion.
    let mut selected =
        c.watch(&format!("{MAPS}?watch=1&labelSelector=v%3D1&resourceVersion={start}")).await;
    assert_eq!(selected.line().await, "ADDED a");
    let left = selected.next().await.unwrap();
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["v"]),
        (&json!("DELETED"), &json!("1"))
    );

    c.post(MAPS, &config_map("b", "1")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=v";
    let mut initial = c.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(initial.line().await, "ADDED b");
    let mark = initial.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    c.post(MAPS, &config_map("c", "1")).await.expect(201);
    assert_eq!(initial.line().await, "ADDED c");

    let mut short = c.watch(&format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=1&resourceVersion=0&labelSelector=none")).await;
    assert_eq!(short.next().await.unwrap()["type"], "BOOKMARK");
    assert!(short.next().await.is_none());

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = c
        .request(
            "GET",
            &format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion=0&labelSelector=v"),
            &table,
            "",
        )
        .await;
    let line = shown.body.split(|b| *b == b'\n').next().unwrap().to_vec();
    let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(event["object"]["kind"], "Table");
    // A server that starts later knows the recent past, as far as the store does.
    cluster.add_server().await;
    let late = cluster.client_of(1, "admin", "system:masters");
    let mut replayed = late.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    assert_eq!(replayed.line().await, "ADDED a");
    let now = late.get(MAPS).await.expect(200)["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let store =
        etcd_api::client::connect(&[format!("http://127.0.0.1:{}", cluster.etcd.port)], None)
            .unwrap();
    let compact = etcd_api::pb::etcdserverpb::CompactionRequest { revision: now, physical: true };
    store.kv().compact(compact).await.unwrap();
    cluster.add_server().await;
    let later = cluster.client_of(2, "admin", "system:masters");
    let mut refused = later.watch(&format!("{MAPS}?watch=1&resourceVersion={start}")).await;
    let refusal = refused.next().await.unwrap();
    assert_eq!(
        (&refusal["type"], &refusal["object"]["reason"]),
        (&json!("ERROR"), &json!("Expired"))
    );
    assert!(refused.next().await.is_none());
    // A list that was cut off before the compaction can only go on from now.
    let page = c
        .get(&format!("{MAPS}?limit=1&resourceVersionMatch=Exact&resourceVersion={now}"))
        .await
        .expect(200);
    let token = page["metadata"]["continue"].as_str().unwrap();
    c.post(MAPS, &config_map("late", "1")).await.expect(201);
    let now = c.get(MAPS).await.expect(200)["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let compact = etcd_api::pb::etcdserverpb::CompactionRequest { revision: now, physical: true };
    store.kv().compact(compact).await.unwrap();
    let expired = c.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(410);
    let token = expired["metadata"]["continue"].as_str().unwrap();
    c.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(200);
}

#[tokio::test]
async fn a_restart_of_the_store_is_survived() {
    let mut cluster = Cluster::start().await;
    let c = cluster.admin();
    let mut watch = c.watch(&format!("{MAPS}?watch=1&labelSelector=v")).await;
    c.post(MAPS, &config_map("before", "1")).await.expect(201);
    assert_eq!(watch.line().await, "ADDED before");
    cluster.etcd.kill();
    let down = c.get("/readyz/etcd").await.code;
    assert_ne!(down, 200);
    cluster.etcd.run();
    common::wait("writes work again", async || {
        c.post(MAPS, &config_map("after", "1")).await.code != 500
            && c.get(&format!("{MAPS}/after")).await.code == 200
    })
    .await;
    assert_eq!(watch.line().await, "ADDED after");
}

#[tokio::test]
async fn termination_ends_watches_and_the_process() {
    let mut cluster = Cluster::start().await;
    let c = cluster.admin();
    let mut watch = c.watch(&format!("{MAPS}?watch=1&labelSelector=v")).await;
    let pid = cluster.servers[0].process.0.id().to_string();
    std::process::Command::new("kill").arg(&pid).status().unwrap();
    assert!(watch.next().await.is_none());
    let status = tokio::task::spawn_blocking(move || cluster.servers[0].process.0.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success());
}
