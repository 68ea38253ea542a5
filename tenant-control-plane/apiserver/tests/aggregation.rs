//! API aggregation: groups that an extension API server serves.
#![allow(clippy::unwrap_used)]

mod common;

use common::extension::{ADDRESS, Extension, GROUP};
use common::{Client, wait};
use serde_json::{Value, json};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn one() -> String {
    format!("{API_SERVICES}/v1.{GROUP}")
}

/// Waits until the APIService says why it is (not) available, and returns the condition.
async fn told(c: &Client, reason: &str) -> Value {
    let mut last = Value::Null;
    wait(&format!("the APIService says {reason}"), async || {
        last = c.get(&one()).await.json()["status"]["conditions"][0].clone();
        last["reason"] == reason
    })
    .await;
    last
}

/// The entry of the extension's group in aggregated discovery.
async fn discovered(c: &Client) -> Option<Value> {
    let list = c.request("GET", "/apis", &[("accept", AGGREGATED)], "").await.json();
    let items = list["items"].as_array().unwrap();
    items.iter().find(|item| item["metadata"]["name"] == GROUP).cloned()
}

#[tokio::test]
async fn requests_for_an_extensions_group_are_passed_on() {
    let extension = Extension::start().await;
    let c = extension.cluster.default_namespace().await;
    let things = format!("/apis/{GROUP}/v1/namespaces/default/things");
    c.get(&things).await.expect(404);
    c.post(API_SERVICES, &extension.api_service()).await.expect(201);
    assert_eq!(told(&c, "ServiceNotFound").await["status"], "False");
    c.get(&things).await.expect(503);
    extension.publish(&c).await;
    let condition = told(&c, "Passed").await;
    assert_eq!(
        (&condition["status"], &condition["message"]),
        (&json!("True"), &json!("all checks passed"))
    );

    let headers = [
        ("content-type", "application/json"),
        ("impersonate-user", "bob"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-why", "test"),
        ("x-remote-user", "mallory"),
        ("x-remote-group", "spoofed"),
    ];
    let path = format!("{things}?dryRun=All&x=%2F");
    let seen = c.request("POST", &path, &headers, "{\"a\":1}").await.expect(200);
    assert_eq!(
        seen,
        json!({"method": "POST", "uri": path, "user": ["bob"],
            "groups": ["system:masters", "system:authenticated"], "extra": ["test"],
            "authorization": [], "body": "{\"a\":1}"})
    );
    let dialed = extension.dialed();
    assert!(dialed.iter().all(|place| *place == format!("{ADDRESS}:8443")), "{dialed:?}");
    let eve = extension.cluster.client("eve", "");
    eve.get(&things).await.expect(403);
    assert_eq!(extension.dialed().len(), dialed.len(), "what is forbidden goes nowhere");
}

#[tokio::test]
async fn an_extensions_group_is_discovered_like_all_others() {
    let extension = Extension::start().await;
    let c = extension.cluster.default_namespace().await;
    extension.publish(&c).await;
    c.post(API_SERVICES, &extension.api_service()).await.expect(201);
    told(&c, "Passed").await;
    let version = json!({"groupVersion": format!("{GROUP}/v1"), "version": "v1"});
    let group = c.get(&format!("/apis/{GROUP}")).await.expect(200);
    assert_eq!((&group["kind"], &group["preferredVersion"]), (&json!("APIGroup"), &version));
    let groups = c.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == GROUP));
    let resources = c.get(&format!("/apis/{GROUP}/v1")).await.expect(200);
    assert_eq!(resources["resources"][0]["name"], "things");
    let found = discovered(&c).await.unwrap();
    assert_eq!(found["versions"][0]["freshness"], "Current");
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "things");
    let index = c.get("/openapi/v3").await.expect(200);
    let url = &index["paths"][format!("apis/{GROUP}/v1")]["serverRelativeURL"];
    let schema = c.get(url.as_str().unwrap()).await.expect(200);
    assert_eq!(schema["openapi"], "3.0.0");

    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    c.delete(&format!("{slices}/ext-1")).await.expect(200);
    let condition = told(&c, "MissingEndpoints").await;
    assert!(condition["message"].as_str().unwrap().contains("port name \"api\""), "{condition}");
    let things = format!("/apis/{GROUP}/v1/namespaces/default/things");
    assert_eq!(c.get(&things).await.expect(503)["reason"], "ServiceUnavailable");
    let found = discovered(&c).await.unwrap();
    assert_eq!(found["versions"][0]["freshness"], "Stale");
    assert_eq!(found["versions"][0]["resources"][0]["resource"], "things");

    c.delete(&one()).await.expect(200);
    wait("the group is gone", async || discovered(&c).await.is_none()).await;
    c.get(&things).await.expect(404);
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_is_not_available() {
    let extension = Extension::start().await;
    let c = extension.cluster.default_namespace().await;
    extension.publish(&c).await;
    let mut object = extension.api_service();
    object["spec"].as_object_mut().unwrap().remove("caBundle");
    c.post(API_SERVICES, &object).await.expect(201);
    let condition = told(&c, "FailedDiscoveryCheck").await;
    let text = condition["message"].as_str().unwrap();
    assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
    c.patch(&one(), &json!({"spec": {"insecureSkipTLSVerify": true}})).await.expect(200);
    told(&c, "Passed").await;
    c.patch(&one(), &json!({"spec": {"caBundle": "YQ=="}})).await.expect(422);
    c.patch(&one(), &json!({"spec": {"service": null, "insecureSkipTLSVerify": false}}))
        .await
        .expect(200);
    told(&c, "Local").await;
}
