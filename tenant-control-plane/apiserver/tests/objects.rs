//! Reading and writing objects over HTTP, against a real etcd.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Cluster, config_map};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn objects_are_created_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let created = c.post(MAPS, &config_map("a", "1")).await.expect(201);
    assert!(created["metadata"]["uid"].is_string());
    let conflict = c.post(MAPS, &config_map("a", "1")).await.expect(409);
    assert_eq!(conflict["reason"], "AlreadyExists");
    assert_eq!(conflict["message"], "configmaps \"a\" already exists");

    let got = c.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(got, created);
    let mut stale = got.clone();
    let patched = c.patch(&format!("{MAPS}/a"), &json!({"data": {"w": "2"}})).await.expect(200);
    assert_eq!(patched["data"], json!({"v": "1", "w": "2"}));
    stale["data"] = json!({});
    assert_eq!(c.put(&format!("{MAPS}/a"), &stale).await.expect(409)["reason"], "Conflict");
    let same = c.patch(&format!("{MAPS}/a"), &json!({"data": {"w": "2"}})).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"]);

    let generated = json!({"metadata": {"generateName": "g-"}});
    let first = c.post(MAPS, &generated).await.expect(201);
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("g-"));

    let dry = c.post(&format!("{MAPS}?dryRun=All"), &config_map("dry", "1")).await.expect(201);
    assert_eq!(dry["data"]["v"], "1");
    c.get(&format!("{MAPS}/dry")).await.expect(404);

    let wrong = json!({"preconditions": {"uid": "nope"}});
    let body = wrong.to_string();
    let json_type = [("content-type", "application/json")];
    c.request("DELETE", &format!("{MAPS}/a"), &json_type, body).await.expect(409);
    let gone = c.delete(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!((&gone["status"], &gone["details"]["name"]), (&json!("Success"), &json!("a")));
    let missing = c.get(&format!("{MAPS}/a")).await.expect(404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");

    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["x.io/y"]);
    c.post(MAPS, &held).await.expect(201);
    let marked = c.delete(&format!("{MAPS}/held")).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    c.patch(&format!("{MAPS}/held"), &json!({"metadata": {"finalizers": null}})).await.expect(200);
    c.get(&format!("{MAPS}/held")).await.expect(404);

    c.delete(&format!("{MAPS}?labelSelector=v%3D1")).await.expect(200);
    let left = c.get(MAPS).await.expect(200);
    let left = left["items"].as_array().unwrap();
    assert!(left.iter().all(|o| o["metadata"]["labels"]["v"] != "1"));
}

#[tokio::test]
async fn lists_are_paged_selected_and_shown_as_tables() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    for i in 0..7 {
        c.post(MAPS, &config_map(&format!("m{i}"), if i % 2 == 0 { "even" } else { "odd" }))
            .await
            .expect(201);
    }
    let first = c.get(&format!("{MAPS}?limit=3&labelSelector=v")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // A change in between is not seen by the rest of the list.
    c.delete(&format!("{MAPS}/m5")).await.expect(200);
    let second =
        c.get(&format!("{MAPS}?limit=3&labelSelector=v&continue={token}")).await.expect(200);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&second), ["m3", "m4", "m5"]);
    c.get(&format!("{MAPS}?continue=garbage")).await.expect(400);

    let odd = c.get(&format!("{MAPS}?labelSelector=v+in+(odd)")).await.expect(200);
    assert_eq!(names(&odd), ["m1", "m3"]);
    let one = c.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm2")).await.expect(200);
    assert_eq!(names(&one), ["m2"]);
    c.get(&format!("{MAPS}?fieldSelector=spec.nope%3Dx")).await.expect(400);
    c.get(&format!("{MAPS}?labelSelector=a+b")).await.expect(400);

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let shown = c.request("GET", &format!("{MAPS}?limit=2"), &table, "").await.expect(200);
    assert_eq!(shown["kind"], "Table");
    assert_eq!(shown["columnDefinitions"][0]["name"], "Name");
    assert_eq!(shown["rows"].as_array().unwrap().len(), 2);
    let partial = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let shown = c.request("GET", MAPS, &partial, "").await.expect(200);
    assert_eq!(shown["kind"], "PartialObjectMetadataList");
    assert!(shown["items"][0]["data"].is_null());

    let mut exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion=");
    exact.push_str(first["metadata"]["resourceVersion"].as_str().unwrap());
    assert!(names(&c.get(&exact).await.expect(200)).contains(&"m5".to_owned()));
}

#[tokio::test]
async fn bad_input_gets_a_clear_status() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let json_type = [("content-type", "application/json")];
    let send = async |path: &str, body: String| c.request("POST", path, &json_type, body).await;
    assert_eq!(send(MAPS, "{".into()).await.expect(400)["reason"], "BadRequest");
    assert_eq!(send(MAPS, "[".repeat(100_000)).await.expect(400)["reason"], "BadRequest");
    assert_eq!(send(MAPS, "[]".into()).await.expect(400)["reason"], "BadRequest");
    assert_eq!(send(MAPS, r#"{"metadata": "x"}"#.into()).await.expect(400)["reason"], "BadRequest");
    assert_eq!(send(MAPS, r#"{"kind": "Pod"}"#.into()).await.expect(400)["reason"], "BadRequest");
    let large = format!(r#"{{"data": {{"a": "{}"}}}}"#, "x".repeat(4 << 20));
    assert_eq!(send(MAPS, large).await.expect(413)["reason"], "RequestEntityTooLarge");
    let unnamed = send(MAPS, "{}".into()).await.expect(422);
    assert_eq!(unnamed["details"]["causes"][0]["field"], "metadata.name");
    let bad_name = send(MAPS, r#"{"metadata": {"name": "Not_A_Name"}}"#.into()).await.expect(422);
    assert_eq!(bad_name["reason"], "Invalid");
    let text = c.request("POST", MAPS, &[("content-type", "text/plain")], "x").await;
    assert_eq!(text.expect(415)["reason"], "UnsupportedMediaType");
    let proto = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(c.request("GET", "/api/v1/nodes", &[("accept", "image/png")], "").await.code, 406);
    let _ = proto;
    let mut unknown = config_map("u", "1");
    unknown["nope"] = json!(1);
    let strict = c.post(&format!("{MAPS}?fieldValidation=Strict"), &unknown).await.expect(400);
    assert!(strict["message"].as_str().unwrap().contains("unknown field \"nope\""));
    let warned = c.post(MAPS, &unknown).await;
    assert!(warned.headers["warning"].to_str().unwrap().contains("unknown field \\\"nope\\\""));
    assert!(warned.expect(201)["nope"].is_null());
    let yaml = [("content-type", "application/yaml")];
    c.request("POST", MAPS, &yaml, "metadata:\n  name: y\ndata: {a: b}\n").await.expect(201);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    assert_eq!(c.request("POST", MAPS, &yaml, bomb).await.code, 400);
    c.get("/api/v1/nope").await.expect(404);
    c.get("/apis/nope/v1/x").await.expect(404);
    c.get("/nope").await.expect(404);
    c.get("/api/v1/namespaces/default/nodes").await.expect(404);
    c.post("/api/v1/namespaces/default/configmaps/a", &json!({})).await.expect(405);
    c.put(MAPS, &json!({})).await.expect(405);
    let far = c.get(&format!("{MAPS}?resourceVersion=abc")).await.expect(400);
    assert_eq!(far["reason"], "BadRequest");
    c.get(&format!("{MAPS}?limit=x")).await.expect(400);
}

#[tokio::test]
async fn pods_are_bound_evicted_and_end_in_their_time() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let pods = "/api/v1/namespaces/default/pods";
    c.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    let pod = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 5},
        })
    };
    let made = c.post(pods, &pod("p")).await.expect(201);
    assert_eq!(made["status"]["phase"], "Pending");
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    c.post(&format!("{pods}/p/binding"), &binding).await.expect(201);
    c.post(&format!("{pods}/p/binding"), &binding).await.expect(409);
    let bound = c.get(&format!("{pods}?fieldSelector=spec.nodeName%3Dn1")).await.expect(200);
    assert_eq!(bound["items"][0]["metadata"]["name"], "p");
    assert_eq!(bound["items"][0]["metadata"]["generation"], 1);

    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"nodeName": "other"}});
    let after = c.patch(&format!("{pods}/p/status"), &running).await.expect(200);
    assert_eq!(
        (&after["status"]["phase"], &after["spec"]["nodeName"]),
        (&json!("Running"), &json!("n1"))
    );

    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    c.post(budgets, &budget).await.expect(201);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(
        c.post(&format!("{pods}/p/eviction"), &eviction).await.expect(429)["reason"],
        "TooManyRequests"
    );
    let allow = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1}});
    c.patch(&format!("{budgets}/b/status"), &allow).await.expect(200);
    c.post(&format!("{pods}/p/eviction"), &eviction).await.expect(201);
    let ending = c.get(&format!("{pods}/p")).await.expect(200);
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 5);
    c.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    c.get(&format!("{pods}/p")).await.expect(404);

    c.post(pods, &pod("unbound")).await.expect(201);
    c.delete(&format!("{pods}/unbound")).await.expect(200);
    c.get(&format!("{pods}/unbound")).await.expect(404);
}

#[tokio::test]
async fn custom_resources_live_and_die_with_their_definition() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "tabs", "kind": "Tab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "minimum": 1, "default": 2}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}],
        },
    });
    c.post(definitions, &definition).await.expect(201);
    let tabs = "/apis/example.com/v1/namespaces/default/tabs";
    let tab = json!({"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": "t"}, "spec": {"extra": 1}, "status": {"a": 1}});
    let made = c.post(tabs, &tab).await.expect(201);
    assert_eq!(made["spec"], json!({"size": 2}));
    assert!(made["status"].is_null());
    c.patch(&format!("{tabs}/t"), &json!({"spec": {"size": 0}})).await.expect(422);
    c.patch(&format!("{tabs}/t/status"), &json!({"status": {"a": 1}})).await.expect(200);
    let mut watch = c.watch(&format!("{tabs}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED t");
    let discovery = c.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(discovery["resources"][0]["kind"], "Tab");
    c.delete(&format!("{definitions}/tabs.example.com")).await.expect(200);
    assert_eq!(watch.line().await, "DELETED t");
    common::wait("the definition is gone", async || c.get(tabs).await.code == 404).await;
}

#[tokio::test]
async fn pods_are_resized() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    let namespace = "/api/v1/namespaces/default";
    c.post(&format!("{namespace}/serviceaccounts"), &json!({"metadata": {"name": "default"}}))
        .await
        .expect(201);
    let container = |resources: Value| json!({"name": "c", "image": "i", "resources": resources});
    let with = |resources: Value| json!({"spec": {"containers": [container(resources)]}});
    let mut pod = with(json!({"requests": {"cpu": "20m"}}));
    pod["metadata"] = json!({"name": "p"});
    let made = c.post(&format!("{namespace}/pods"), &pod).await.expect(201);

    let path = format!("{namespace}/pods/p/resize");
    assert_eq!(c.get(&path).await.expect(200), made);
    let larger = with(json!({"requests": {"cpu": "30m"}, "limits": {"cpu": "40m"}}));
    c.patch(&format!("{namespace}/pods/p"), &larger).await.expect(422);
    let resized = c.patch(&path, &larger).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["limits"]["cpu"], "40m");
    assert_eq!(resized["metadata"]["generation"], 2);

    let mut wanted = resized.clone();
    wanted["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "35m".into();
    wanted["spec"]["containers"][0]["image"] = "other".into();
    let resized = c.put(&path, &wanted).await.expect(200);
    let container = &resized["spec"]["containers"][0];
    assert_eq!(
        (&container["resources"]["requests"]["cpu"], &container["image"]),
        (&json!("35m"), &json!("i"))
    );

    let message = |answer: Value| answer["message"].as_str().unwrap().to_owned();
    let none = c.patch(&path, &with(json!({}))).await.expect(422);
    assert!(message(none).contains("resource requests cannot be removed"));
    let upside_down = with(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "40m"}}));
    assert!(message(c.patch(&path, &upside_down).await.expect(422)).contains("less than or equal"));
}
