//! What people and scripts look for in the text of answers: order and wording as upstream's.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Cluster, config_map, wait};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn define(c: &Client, group: &str) {
    let definition = json!({
        "metadata": {"name": format!("tabs.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"plural": "tabs", "kind": "Tab", "shortNames": ["t"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    c.post(DEFINITIONS, &definition).await.expect(201);
    let path = format!("/apis/{group}/v1/tabs");
    wait("the definition is served", async || c.get(&path).await.code == 200).await;
}

#[tokio::test]
async fn discovery_is_in_upstreams_order() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let text = String::from_utf8(c.get("/api/v1").await.body.to_vec()).unwrap();
    let maps = r#"{"name":"configmaps","singularName":"configmap","namespaced":true,"kind":"ConfigMap","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["cm"],"storageVersionHash":""#;
    assert!(text.contains(maps), "{text}");
    let scale = r#"{"name":"replicationcontrollers/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get","patch","update"]}"#;
    assert!(text.contains(scale), "{text}");
    define(&c, "zoo.example.com").await;
    define(&c, "bar.example.com").await;
    let groups = c.get("/apis").await.expect(200);
    let names: Vec<&Value> =
        groups["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(names[names.len() - 2..], ["bar.example.com", "zoo.example.com"], "by name");
}

#[tokio::test]
async fn what_does_not_fit_is_told_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    c.post(MAPS, &config_map("m", "1")).await.expect(201);
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patch = r#"{"metadata": {"labels": "invalid"}}"#;
    let refused = c.request("PATCH", &format!("{MAPS}/m"), &strategic, patch).await.expect(422);
    assert_eq!(
        refused["message"],
        " \"\" is invalid: patch: Invalid value: \"map[metadata:map[labels:invalid]]\": cannot \
         restore map from string"
    );
    let json_type = [("content-type", "application/json")];
    let yaml = "apiVersion: v1\nkind: Pod\n";
    let refused = c.request("POST", "/api/v1/namespaces", &json_type, yaml).await.expect(400);
    let said = refused["message"].as_str().unwrap();
    assert!(
        said.starts_with("the object provided is unrecognized (must be of type Namespace): "),
        "{said}"
    );
}

#[tokio::test]
async fn people_get_lines_and_programs_get_none() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    c.post(MAPS, &config_map("m", "1")).await.expect(201);
    let lines = async |path: &str, agent: &str| {
        let answer = c.request("GET", path, &[("user-agent", agent)], "").await;
        answer.body.iter().filter(|byte| **byte == b'\n').count()
    };
    for path in [MAPS.to_owned(), format!("{MAPS}/m")] {
        assert!(lines(&path, "curl/8.5.0").await > 5);
        assert!(lines(&format!("{path}?pretty=true"), "kubectl/v1.35.4").await > 5);
        assert_eq!(lines(&format!("{path}?pretty=false"), "curl/8.5.0").await, 0);
        assert_eq!(lines(&path, "kubectl/v1.35.4").await, 0);
    }
}

#[tokio::test]
async fn kubectl_may_go_on_with_server_side_apply() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let mut by_client = config_map("m", "1");
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"},
        "data": by_client["data"]});
    by_client["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    c.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &by_client).await.expect(201);
    let mut new = last;
    for value in new["data"].as_object_mut().unwrap().values_mut() {
        *value = json!("2");
    }
    let yaml = [("content-type", "application/apply-patch+yaml")];
    let apply = async |manager: &str| {
        let path = format!("{MAPS}/m?fieldManager={manager}");
        c.request("PATCH", &path, &yaml, new.to_string()).await
    };
    assert_eq!(apply("somebody").await.expect(409)["reason"], "Conflict");
    let applied = apply("kubectl").await.expect(200);
    assert_eq!(applied["data"], new["data"]);
    let kept =
        &applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(serde_json::from_str::<Value>(kept.as_str().unwrap()).unwrap(), new);
}

#[tokio::test]
async fn tokens_of_the_file_name_their_users() {
    let cluster = Cluster::start().await;
    let mut c = cluster.client("", "");
    c.token = Some("ops-token".into());
    let me = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let user = c.post(me, &json!({})).await.expect(201)["status"]["userInfo"].clone();
    assert_eq!((&user["username"], &user["uid"]), (&json!("olga"), &json!("7")));
    assert_eq!(user["groups"], json!(["system:masters", "ops", "system:authenticated"]));
    let review = json!({"spec": {"token": "ops-token"}});
    let review = c.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(review["status"]["user"], user);
    c.token = Some("wrong".into());
    c.post(me, &json!({})).await.expect(401);
}
