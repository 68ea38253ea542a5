//! Custom resources whose versions a webhook converts.
#![allow(clippy::unwrap_used)]

mod common;

use common::webhook::{Hook, Reply};
use common::{Client, Cluster, wait};
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/hosts")
}

/// `hostPort` in v1, `host` and `port` in v2.
fn convert(request: &Value) -> Reply {
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        let fields = object.as_object_mut().unwrap();
        if wanted.ends_with("/v2") {
            let both = fields.remove("hostPort").unwrap_or_default();
            let (host, port) =
                both.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
            fields.insert("host".into(), host.into());
            fields.insert("port".into(), port.into());
        } else {
            let part = |v: Option<Value>| v.and_then(|v| v.as_str().map(str::to_owned));
            let (host, port) = (part(fields.remove("host")), part(fields.remove("port")));
            let both = format!("{}:{}", host.unwrap_or_default(), port.unwrap_or_default());
            fields.insert("hostPort".into(), both.into());
        }
        object
    };
    let objects: Vec<_> = request["objects"].as_array().unwrap().iter().map(convert).collect();
    if objects.iter().any(|o| o["metadata"]["name"] == "broken") {
        let failed = json!({"status": "Failure", "message": "it is broken"});
        return Reply::Answer(json!({"result": failed}));
    }
    Reply::Answer(json!({"convertedObjects": objects, "result": {"status": "Success"}}))
}

fn versions(stored: &str) -> Value {
    let text = json!({"type": "string"});
    let version = |name: &str, properties: Value| {
        let selectable = properties.as_object().unwrap().keys();
        let selectable: Vec<_> = selectable.map(|f| json!({"jsonPath": format!(".{f}")})).collect();
        json!({"name": name, "served": true, "storage": name == stored,
            "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!([
        version("v1", json!({"hostPort": text})),
        version("v2", json!({"host": text, "port": text})),
    ])
}

async fn define(cluster: &Cluster, c: &Client) -> Hook {
    let hook = cluster.hook(|_, request| convert(request)).await;
    define_with(c, &hook).await;
    hook
}

async fn define_with(c: &Client, hook: &Hook) {
    let mut definition = json!({
        "metadata": {"name": "hosts.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "kind": "Host"}, "versions": versions("v1"),
            "conversion": {"strategy": "Webhook"},
        },
    });
    let refused = c.post(DEFINITIONS, &definition).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("spec.conversion.webhook.clientConfig"));
    definition["spec"]["conversion"]["webhook"] =
        json!({"clientConfig": hook.client("/convert"), "conversionReviewVersions": ["v1"]});
    c.post(DEFINITIONS, &definition).await.expect(201);
    wait("the definition is served", async || c.get(&path("v2")).await.code == 200).await;
}

fn host(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": name},
        "hostPort": "localhost:8080"})
}

#[tokio::test]
async fn an_object_is_converted_for_who_reads_watches_and_writes_it() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let hook = define(&cluster, &c).await;
    let list = c.get(&path("v2")).await.expect(200);
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    c.post(&path("v1"), &host("a")).await.expect(201);
    let one = format!("{}/a", path("v2"));
    let read = c.get(&one).await.expect(200);
    assert_eq!((&read["host"], &read["port"]), (&json!("localhost"), &json!("8080")));
    assert_eq!(read["apiVersion"], "example.com/v2");
    assert!(read["hostPort"].is_null());
    let asked = hook.seen("/convert").len();
    c.get(&one).await.expect(200);
    assert_eq!(hook.seen("/convert").len(), asked, "the same object is not asked about twice");

    let mut watch = c.watch(&format!("{}?watch=true&resourceVersion={from}", path("v2"))).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["port"]), (&json!("ADDED"), &json!("8080")));

    let patched = c.patch(&one, &json!({"port": "9090"})).await.expect(200);
    assert_eq!(patched["port"], "9090");
    let read = c.get(&format!("{}/a", path("v1"))).await.expect(200);
    assert_eq!(read["hostPort"], "localhost:9090");
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["port"]), (&json!("MODIFIED"), &json!("9090")));
    c.delete(&one).await.expect(200);
    assert_eq!(watch.line().await, "DELETED a");
}

#[tokio::test]
async fn selectors_are_about_what_is_converted() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let _hook = define(&cluster, &c).await;
    for (name, at) in [("a", "one:80"), ("b", "one:8080"), ("c", "two:80"), ("d", "one:80")] {
        let mut object = host(name);
        object["hostPort"] = at.into();
        c.post(&path("v1"), &object).await.expect(201);
    }
    let names = |list: &Value| {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    let selected = format!("{}?fieldSelector=host%3Done", path("v2"));
    let list = c.get(&selected).await.expect(200);
    assert_eq!(names(&list), "abd");
    let page = c.get(&format!("{selected}&limit=2")).await.expect(200);
    assert_eq!(names(&page), "ab");
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = c.get(&format!("{selected}&limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), "d");
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{selected}&resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&c.get(&exact).await.expect(200)), "abd");
    c.delete(&format!("{selected},port%3D80")).await.expect(200);
    assert_eq!(names(&c.get(&path("v2")).await.expect(200)), "bc");
}

#[tokio::test]
async fn a_list_may_hold_objects_stored_in_different_versions() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let _hook = define(&cluster, &c).await;
    c.post(&path("v1"), &host("a")).await.expect(201);
    let stored = json!({"spec": {"versions": versions("v2")}});
    c.patch(&format!("{DEFINITIONS}/hosts.example.com"), &stored).await.expect(200);
    c.post(&path("v1"), &host("b")).await.expect(201);
    for (version, key, value) in [("v1", "hostPort", "localhost:8080"), ("v2", "host", "localhost")]
    {
        let list = c.get(&path(version)).await.expect(200);
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        for item in items {
            assert_eq!(item["apiVersion"], format!("example.com/{version}"));
            assert_eq!(item[key], value);
        }
    }
    // What cannot be converted cannot be stored in another version.
    let refused = c.post(&path("v1"), &host("broken")).await.expect(500);
    let text = "conversion webhook for example.com/v1, Kind=Host failed: it is broken";
    assert_eq!(refused["message"], text);
}

#[tokio::test]
async fn a_version_that_objects_are_stored_in_stays() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let _hook = define(&cluster, &c).await;
    c.post(&path("v1"), &host("a")).await.expect(201);
    let one = format!("{DEFINITIONS}/hosts.example.com");
    c.patch(&one, &json!({"spec": {"versions": versions("v2")}})).await.expect(200);
    let only = json!([versions("v2")[1]]);
    let refused = c.patch(&one, &json!({"spec": {"versions": only}})).await.expect(422);
    let text = "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was \
                previously a storage version";
    assert!(refused["message"].as_str().unwrap().contains(text), "{refused}");
    let migrated = json!({"status": {"storedVersions": ["v2"]}});
    c.patch(&format!("{one}/status"), &migrated).await.expect(200);
    c.patch(&one, &json!({"spec": {"versions": only}})).await.expect(200);
}

#[tokio::test]
async fn who_waits_for_a_conversion_does_not_hold_up_the_quota() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["objects"][0]["metadata"]["name"] == "slow" {
            true => Reply::Hang,
            false => convert(request),
        })
        .await;
    define_with(&c, &hook).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"count/hosts.example.com": "5"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut quota = c.post(quotas, &quota).await.expect(201);
    quota["status"] = json!({"hard": hard, "used": {"count/hosts.example.com": "0"}});
    c.put(&format!("{quotas}/q/status"), &quota).await.expect(200);
    let host = |name: &str| {
        json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": name},
            "host": "localhost", "port": "80"})
    };
    let (slow, at) = (host("slow"), path("v2"));
    tokio::select! {
        _ = c.post(&at, &slow) => panic!("it hangs"),
        () = async {
            wait("the slow one is asked about", async || !hook.seen("/convert").is_empty()).await;
            c.post(&path("v2"), &host("quick")).await.expect(201);
        } => {}
    }
    let quota = c.get(&format!("{quotas}/q")).await.expect(200);
    assert_eq!(quota["status"]["used"], json!({"count/hosts.example.com": "1"}));
}
