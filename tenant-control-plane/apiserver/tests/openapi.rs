//! OpenAPI documents over HTTP, as they follow the definitions of custom resources.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, Client, Cluster, wait};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn definition(version: &str) -> Value {
    let schema = json!({"type": "object", "description": "A tab.", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}}}});
    json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "tabs", "kind": "Tab"},
            "versions": [{"name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

async fn v2(c: &Client, headers: &[(&str, &str)]) -> Answer {
    c.request("GET", "/openapi/v2", headers, "").await
}

#[tokio::test]
async fn version_2_follows_the_definitions() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let before = v2(&c, &[]).await;
    let etag = before.headers["etag"].to_str().unwrap().to_owned();
    let document = before.expect(200);
    assert_eq!(document["swagger"], "2.0");
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    let known = [("if-none-match", etag.as_str())];
    assert_eq!(v2(&c, &known).await.code, 304);

    c.post(DEFINITIONS, &definition("v1")).await.expect(201);
    let tab = async || {
        let document = v2(&c, &known).await;
        if document.code == 304 { Value::Null } else { document.expect(200)["definitions"].take() }
    };
    wait("the kind is published", async || tab().await["com.example.v1.Tab"].is_object()).await;
    let published = tab().await;
    let schema = &published["com.example.v1.Tab"];
    assert_eq!(schema["description"], "A tab.");
    assert_eq!(schema["properties"]["spec"]["properties"]["size"], json!({"type": "integer"}));
    assert!(schema["properties"]["metadata"]["$ref"].is_string());
    assert!(published["com.example.v1.TabList"].is_object());
    let newer = c.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let schema = &newer["components"]["schemas"]["com.example.v1.Tab"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["default"], 1);
    assert!(
        newer["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
            .is_object()
    );

    // The old version stays, unserved, since objects may be stored in it.
    let (mut old, mut new) = (definition("v1"), definition("v2"));
    let (mut old, new) = (old["spec"]["versions"][0].take(), new["spec"]["versions"][0].take());
    (old["served"], old["storage"]) = (false.into(), false.into());
    let rename = json!({"spec": {"versions": [new, old]}});
    c.patch(&format!("{DEFINITIONS}/tabs.example.com"), &rename).await.expect(200);
    wait("the new version is published", async || {
        let all = tab().await;
        all["com.example.v2.Tab"].is_object() && all["com.example.v1.Tab"].is_null()
    })
    .await;
    c.delete(&format!("{DEFINITIONS}/tabs.example.com")).await.expect(200);
    wait("all is as before", async || v2(&c, &known).await.code == 304).await;
}

#[tokio::test]
async fn version_2_is_there_as_protobuf() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let wanted = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = v2(&c, &[("accept", wanted)]).await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        answer.headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string());
    assert!(answer.body.starts_with(b"\x0a\x032.0\x12"));
    assert_eq!(v2(&c, &[("accept", "image/png")]).await.code, 406);
}
