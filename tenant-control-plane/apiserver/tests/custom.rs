//! Custom resources over HTTP: unknown and repeated fields, defaults of stored objects, selectable
//! fields.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Cluster, wait};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/example.com/v1/namespaces/default/tabs";

fn definition(schema: &Value, selectable: &[&str]) -> Value {
    let fields: Vec<Value> = selectable.iter().map(|path| json!({"jsonPath": path})).collect();
    json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "tabs", "kind": "Tab"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "selectableFields": fields, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

async fn define(c: &Client, definition: &Value) {
    c.post(DEFINITIONS, definition).await.expect(201);
    wait("the definition is served", async || c.get(TABS).await.code == 200).await;
}

async fn redefine(c: &Client, definition: &Value) {
    let spec = json!({"spec": {"versions": definition["spec"]["versions"]}});
    c.patch(&format!("{DEFINITIONS}/tabs.example.com"), &spec).await.expect(200);
}

fn tab(name: &str, color: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": name},
        "spec": {"color": color}})
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_told_as_upstream_does() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let json_type = [("content-type", "application/json")];
    let deployments = "/apis/apps/v1/namespaces/default/deployments?fieldValidation=Strict";
    let body =
        r#"{"metadata": {"name": "d"}, "spec": {"unknownField": 1, "replicas": 2, "replicas": 3}}"#;
    let refused = c.request("POST", deployments, &json_type, body).await.expect(400);
    let wanted = "strict decoding error: unknown field \"spec.unknownField\", duplicate field \"spec.replicas\"";
    assert!(refused["message"].as_str().unwrap().ends_with(wanted), "{refused}");

    let open = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "foo": {"type": "string"},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true}}}}});
    define(&c, &definition(&open, &[])).await;
    let apply = async |body: &str| {
        let path = format!("{TABS}/t?fieldManager=me&fieldValidation=Strict");
        let yaml = [("content-type", "application/apply-patch+yaml")];
        let head = "\napiVersion: example.com/v1\nkind: Tab\n";
        c.request("PATCH", &path, &yaml, format!("{head}{body}")).await
    };
    let message = |answer: Value| answer["message"].as_str().unwrap().to_owned();
    let text = message(apply("metadata: {name: t}\ncolour: red\n").await.expect(500));
    assert_eq!(
        text,
        "failed to create typed patch object (/t; example.com/v1, Kind=Tab): \
         .colour: field not declared in schema"
    );
    let inner = "metadata: {name: t, unknownMeta: 1}\nspec:\n  any: 1\n  template: {kind: S, apiVersion: v1, metadata: {unknownSubMeta: 1}}\n";
    let text = message(apply(inner).await.expect(500));
    assert!(text.contains("\n  .metadata.unknownMeta: field not declared in schema"), "{text}");
    assert!(
        text.contains("\n  .spec.template.metadata.unknownSubMeta: field not declared"),
        "{text}"
    );
    let text = message(apply("metadata: {name: t}\nspec:\n  foo: a\n  foo: b\n").await.expect(400));
    assert!(text.ends_with("\n  line 7: key \"foo\" already set in map"), "{text}");
    let made = apply("metadata: {name: t}\nspec: {foo: a, any: {b: 1}}\n").await.expect(201);
    assert_eq!(made["spec"], json!({"foo": "a", "any": {"b": 1}}));

    redefine(
        &c,
        &definition(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), &[]),
    )
    .await;
    wait("anything goes", async || apply("metadata: {name: t}\nx: 1\n").await.code < 300).await;
}

#[tokio::test]
async fn stored_objects_are_read_with_the_defaults_of_now() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let schema = |size: Value| {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "color": {"type": "string"}, "size": size}}}})
    };
    define(&c, &definition(&schema(json!({"type": "integer"})), &[])).await;
    c.post(TABS, &tab("old", "red")).await.expect(201);
    let mut watch = c.watch(&format!("{TABS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED old");

    redefine(&c, &definition(&schema(json!({"type": "integer", "default": 3})), &[])).await;
    let size = async |name: &str| {
        c.get(&format!("{TABS}/{name}")).await.expect(200)["spec"]["size"].clone()
    };
    wait("the default is there", async || size("old").await == 3).await;
    let list = c.get(TABS).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["size"], 3);
    c.post(TABS, &tab("new", "red")).await.expect(201);
    assert_eq!(watch.line().await, "ADDED new");

    redefine(&c, &definition(&schema(json!({"type": "integer"})), &[])).await;
    wait("the default is gone", async || size("old").await.is_null()).await;
    assert_eq!(size("new").await, 3, "what was written with a default keeps it");
}

#[tokio::test]
async fn objects_are_selected_by_their_own_fields() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": {"type": "string"}, "size": {"type": "string"}}}}});
    define(&c, &definition(&schema, &[".spec.color"])).await;
    c.post(TABS, &tab("a", "red")).await.expect(201);
    c.post(TABS, &tab("b", "blue")).await.expect(201);
    let red = format!("{TABS}?fieldSelector=spec.color%3Dred");
    let names = async |path: &str| -> Vec<String> {
        let list = c.get(path).await.expect(200);
        let items = list["items"].as_array().unwrap().iter();
        items.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&red).await, ["a"]);
    let mut watch = c.watch(&format!("{red}&watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let paint = async |name: &str, color: &str| {
        let patch = json!({"spec": {"color": color}});
        c.patch(&format!("{TABS}/{name}"), &patch).await.expect(200);
    };
    paint("b", "red").await;
    assert_eq!(watch.line().await, "ADDED b");
    paint("a", "blue").await;
    assert_eq!(watch.line().await, "DELETED a");
    c.delete(&red).await.expect(200);
    assert_eq!(watch.line().await, "DELETED b");
    assert_eq!(names(TABS).await, ["a"]);

    let sized = format!("{TABS}?fieldSelector=spec.size%3Dbig");
    c.get(&sized).await.expect(400);
    redefine(&c, &definition(&schema, &[".spec.color", ".spec.size"])).await;
    assert!(watch.next().await.is_none(), "a watch ends when the selectable fields change");
    wait("the new field is selectable", async || c.get(&sized).await.code == 200).await;
    c.patch(&format!("{TABS}/a"), &json!({"spec": {"size": "big"}})).await.expect(200);
    assert_eq!(names(&sized).await, ["a"]);
}

#[tokio::test]
async fn a_group_of_custom_resources_has_an_apiservice_for_as_long_as_it_is_served() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1.example.com";
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&c, &definition(&open, &[])).await;
    wait("an APIService says that the group is local", async || {
        c.get(service).await.json()["status"]["conditions"][0]["reason"] == "Local"
    })
    .await;
    let object = c.get(service).await.expect(200);
    assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(object["spec"]["groupPriorityMinimum"], 1000);
    c.delete(&format!("{DEFINITIONS}/tabs.example.com")).await.expect(200);
    wait("it goes with the definition", async || c.get(service).await.code == 404).await;
    // A built-in group's stays.
    c.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").await.expect(200);
}
