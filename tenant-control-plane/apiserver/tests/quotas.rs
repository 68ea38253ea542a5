//! ResourceQuotas over HTTP, against a real etcd. No controller runs: the test plays its part.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, config_map};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test]
async fn what_is_created_shows_in_the_quotas_status_at_once() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let there = c.get(MAPS).await.expect(200)["items"].as_array().unwrap().len();
    let hard = json!({"configmaps": (there + 20).to_string(), "secrets": "5"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut quota = c.post(QUOTAS, &quota).await.expect(201);
    // Not counted yet: left to the controller.
    c.post(MAPS, &config_map("early", "1")).await.expect(201);
    quota["status"] = json!({"hard": hard, "used": {"configmaps": (there + 1).to_string()}});
    c.put(&format!("{QUOTAS}/q/status"), &quota).await.expect(200);

    let dry = format!("{MAPS}?dryRun=All");
    c.post(&dry, &config_map("dry", "1")).await.expect(201);
    let maps: Vec<_> = (0..19).map(|n| config_map(&format!("map-{n}"), "1")).collect();
    let made = futures::future::join_all(maps.iter().map(|map| c.post(MAPS, map))).await;
    made.into_iter().for_each(|answer| {
        answer.expect(201);
    });
    let quota = c.get(&format!("{QUOTAS}/q")).await.expect(200);
    assert_eq!(quota["status"]["used"], json!({"configmaps": (there + 20).to_string()}));
    let refused = c.post(MAPS, &config_map("one-too-many", "1")).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("exceeded quota: q"), "{refused}");
}
