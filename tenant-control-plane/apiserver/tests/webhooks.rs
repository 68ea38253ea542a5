//! Admission webhooks: what they may change and refuse, and what happens when they fail.
#![allow(clippy::unwrap_used)]

mod common;

use common::webhook::{Reply, allow, configure, deny, entry, patch};
use common::{Cluster, config_map, wait};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_validating_webhook_refuses_every_kind_of_write() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["operation"].as_str().unwrap() {
            "DELETE" if request["oldObject"]["data"]["v"] == "keep" => deny("it stays"),
            _ if request["object"]["data"]["v"] == "bad" => deny("bad value"),
            _ => Reply::Answer(json!({"allowed": true, "warnings": ["mind the value"]})),
        })
        .await;
    c.post("/api/v1/namespaces", &json!({"metadata": {"name": "free", "labels": {"free": "1"}}}))
        .await
        .expect(201);
    let unfree = json!({"namespaceSelector": {"matchExpressions": [
        {"key": "free", "operator": "DoesNotExist"}]}});
    let webhook = entry("judge", hook.client("/"), "", "configmaps", unfree);
    configure(&c, "Validating", "judge", vec![webhook]).await;

    let refused = c.post(MAPS, &config_map("a", "bad")).await.expect(400);
    let text = "admission webhook \"judge.example.com\" denied the request: bad value";
    assert_eq!(refused["message"], text);
    c.post("/api/v1/namespaces/free/configmaps", &config_map("a", "bad")).await.expect(201);

    let created = c.post(MAPS, &config_map("a", "good")).await;
    assert_eq!(created.headers["warning"], "299 - \"mind the value\"");
    created.expect(201);
    let one = format!("{MAPS}/a");
    c.put(&one, &config_map("a", "bad")).await.expect(400);
    c.patch(&one, &json!({"data": {"v": "bad"}})).await.expect(400);
    c.patch(&one, &json!({"data": {"v": "keep"}})).await.expect(200);
    c.delete(&one).await.expect(400);
    c.delete(MAPS).await.expect(400);

    let seen = hook.seen("/");
    let last = seen.last().unwrap();
    assert_eq!(last["operation"], "DELETE");
    assert_eq!(last["options"]["kind"], "DeleteOptions");
    assert_eq!((&last["name"], &last["namespace"]), (&json!("a"), &json!("default")));
    assert_eq!(last["object"], Value::Null);
    assert_eq!(last["userInfo"]["username"], "admin");
    let update = seen.iter().find(|r| r["operation"] == "UPDATE").unwrap();
    assert_eq!(update["oldObject"]["data"]["v"], "good");
    assert_eq!(
        update["requestResource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(update["options"]["kind"], "UpdateOptions");
}

#[tokio::test]
async fn mutating_webhooks_see_what_those_before_them_did() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|path, request| {
            let data = &request["object"]["data"];
            let add = |key: &str| patch(json!([{"op": "add", "path": key, "value": "yes"}]));
            match path {
                "/one" if !data["two"].is_null() && data["three"].is_null() => add("/data/three"),
                "/one" if data["one"].is_null() => add("/data/one"),
                "/two" if data["two"].is_null() => add("/data/two"),
                _ => allow(),
            }
        })
        .await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let first = entry("one", hook.client("/one"), "", "configmaps", again);
    let second = entry("two", hook.client("/two"), "", "configmaps", json!({}));
    configure(&c, "Mutating", "b-later", vec![second]).await;
    configure(&c, "Mutating", "a-first", vec![first]).await;
    let made = c.post(MAPS, &config_map("a", "x")).await.expect(201);
    assert_eq!(made["data"], json!({"v": "x", "one": "yes", "two": "yes", "three": "yes"}));
    assert_eq!((hook.seen("/one").len(), hook.seen("/two").len()), (2, 1));

    let dry = format!("{MAPS}?dryRun=All");
    let made = c.post(&dry, &config_map("dry", "x")).await.expect(201);
    assert_eq!(made["data"]["two"], "yes");
    assert_eq!(hook.seen("/two").last().unwrap()["dryRun"], true);
    assert_eq!(c.get(&format!("{MAPS}/dry")).await.code, 404);
}

#[tokio::test]
async fn what_a_webhook_adds_gets_its_defaults_and_is_validated() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["name"].as_str().unwrap() {
            "good" => patch(json!([
                {"op": "add", "path": "/spec/initContainers", "value": [
                    {"name": "added", "image": "i", "resources": {}, "more": 1}]},
                {"op": "add", "path": "/status/phase", "value": "Running"},
                {"op": "replace", "path": "/metadata/uid", "value": "mine"},
            ])),
            "untyped" => patch(json!([{"op": "add", "path": "/spec/hostNetwork", "value": "x"}])),
            _ => patch(json!([{"op": "remove", "path": "/spec/containers/0/name"}])),
        })
        .await;
    let on_create = json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["pods"]}]});
    let webhook = entry("pods", hook.client("/"), "", "pods", on_create);
    configure(&c, "Mutating", "pods", vec![webhook]).await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    c.post(account, &json!({"metadata": {"name": "default"}})).await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let made = c.post(pods, &pod("good")).await.expect(201);
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File");
    assert!(added["more"].is_null(), "{added}");
    assert_eq!(made["status"]["phase"], "Pending");
    assert_ne!(made["metadata"]["uid"], "mine");
    c.post(pods, &pod("untyped")).await.expect(500);
    c.post(pods, &pod("bad")).await.expect(422);
}

#[tokio::test]
async fn a_webhook_that_fails_stops_the_request_or_is_ignored() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|path, _| match path {
            "/slow" => Reply::Hang,
            _ => Reply::Fail,
        })
        .await;
    let mut untrusted = hook.client("/");
    untrusted.as_object_mut().unwrap().remove("caBundle");
    let absent = json!({"service": {"namespace": "default", "name": "none", "path": "/x"}});
    let cases = [
        ("broken", hook.client("/broken"), "an error on the server"),
        ("slow", hook.client("/slow"), "/slow?timeout=1s\": context deadline exceeded"),
        ("untrusted", untrusted, "x509: certificate signed by unknown authority"),
        (
            "absent",
            absent,
            "Post \"https://none.default.svc:443/x?timeout=1s\": service \"none\" not found",
        ),
    ];
    for (name, client, text) in cases {
        for policy in ["Fail", "Ignore"] {
            let more = json!({"failurePolicy": policy, "timeoutSeconds": 1});
            let webhook = entry(name, client.clone(), "", "configmaps", more);
            let kind = if name == "broken" { "Mutating" } else { "Validating" };
            configure(&c, kind, name, vec![webhook]).await;
            let made = c.post(MAPS, &config_map(name, "x")).await;
            if policy == "Ignore" {
                made.expect(201);
            } else {
                let status = made.expect(500);
                let message = status["message"].as_str().unwrap();
                let start = format!(
                    "Internal error occurred: failed calling webhook \"{name}.example.com\": \
                     failed to call webhook: "
                );
                assert!(message.starts_with(&start) && message.contains(text), "{message}");
                assert_eq!(status["reason"], "InternalError");
            }
            let plural = format!("{}webhookconfigurations", kind.to_lowercase());
            c.delete(&format!("/apis/admissionregistration.k8s.io/v1/{plural}/{name}"))
                .await
                .expect(200);
        }
    }
}

#[tokio::test]
async fn a_custom_resource_is_pruned_after_the_last_webhook() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let data = json!({"type": "object", "properties": {
        "start": {"type": "string"}, "one": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"data": data}});
    let definition = json!({
        "metadata": {"name": "tabs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "tabs", "kind": "Tab"},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}},
                {"name": "v2", "served": true, "storage": false,
                    "schema": {"openAPIV3Schema": schema}},
            ],
        },
    });
    c.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)
        .await
        .expect(201);
    let tabs = "/apis/example.com/v2/namespaces/default/tabs";
    wait("the definition is served", async || c.get(tabs).await.code == 200).await;
    let hook = cluster
        .hook(|path, request| {
            let data = &request["object"]["data"];
            let add = |key: &str| patch(json!([{"op": "add", "path": key, "value": "yes"}]));
            match path {
                "/one" => add("/data/one"),
                "/two" if data["one"] == "yes" => add("/data/two"),
                _ => allow(),
            }
        })
        .await;
    let in_v1 = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["example.com"],
        "apiVersions": ["v1"], "resources": ["tabs"]}]});
    let first = entry("one", hook.client("/one"), "", "", in_v1.clone());
    let second = entry("two", hook.client("/two"), "", "", in_v1.clone());
    let mut exact = in_v1;
    exact["matchPolicy"] = "Exact".into();
    let third = entry("three", hook.client("/three"), "", "", exact);
    configure(&c, "Mutating", "tabs", vec![first, second, third]).await;
    let tab = json!({"apiVersion": "example.com/v2", "kind": "Tab", "metadata": {"name": "a"},
        "data": {"start": "yes"}});
    let made = c.post(tabs, &tab).await.expect(201);
    assert_eq!(made["data"], json!({"start": "yes", "one": "yes"}));
    assert_eq!(made["apiVersion"], "example.com/v2");
    // Asked in the version of the rule, although the request was in another.
    let asked = &hook.seen("/two")[0];
    assert_eq!(asked["object"]["apiVersion"], "example.com/v1");
    assert_eq!(asked["object"]["data"]["one"], "yes");
    assert_eq!(
        (&asked["kind"]["version"], &asked["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert!(hook.seen("/three").is_empty());
}

#[tokio::test]
async fn connections_and_scales_are_asked_about_and_configurations_are_not() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["object"]["kind"].as_str().unwrap_or_default() {
            "PodAttachOptions" if request["object"]["container"] == "c" => deny("no attaching"),
            "Scale" if request["object"]["spec"]["replicas"] == 7 => deny("too many"),
            _ => allow(),
        })
        .await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"],
        "apiVersions": ["*"], "resources": ["*/*"]}]});
    let webhook = entry("all", hook.client("/"), "", "", everything);
    configure(&c, "Validating", "all", vec![webhook]).await;
    let attach = "/api/v1/namespaces/default/pods/p/attach?container=c&stdin=true";
    let refused = c.post(attach, &json!({})).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("no attaching"));
    // The server fills a new cluster meanwhile, and the webhook is asked about that too.
    let asked = hook.seen("/").into_iter().find(|asked| asked["operation"] == "CONNECT").unwrap();
    assert_eq!(asked["subResource"], "attach");
    assert_eq!(asked["kind"]["kind"], "PodAttachOptions");

    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"app": "a"});
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    c.post(sets, &set).await.expect(201);
    let scale = |replicas: i64| json!({"spec": {"replicas": replicas}});
    c.patch(&format!("{sets}/s/scale"), &scale(7)).await.expect(400);
    c.patch(&format!("{sets}/s/scale"), &scale(2)).await.expect(200);

    c.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/all")
        .await
        .expect(200);
    let is_configuration =
        |asked: &Value| asked["resource"]["resource"] == "validatingwebhookconfigurations";
    assert!(!hook.seen("/").iter().any(is_configuration));
}

#[tokio::test]
async fn match_conditions_are_checked_when_stored_and_decide_who_is_asked() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, _| patch(json!([{"op": "add", "path": "/data/seen", "value": "yes"}])))
        .await;
    let conditions = |expression: &str, policy: &str| {
        json!({"failurePolicy": policy,
            "matchConditions": [{"name": "only", "expression": expression}]})
    };
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let bad = entry("bad", hook.client("/"), "", "configmaps", conditions("... [] bad", "Fail"));
    let refused = c.post(path, &json!({"metadata": {"name": "bad"}, "webhooks": [bad]})).await;
    let message = refused.expect(422)["message"].as_str().unwrap().to_owned();
    let start = "MutatingWebhookConfiguration.admissionregistration.k8s.io \"bad\" is invalid: \
                 webhooks[0].matchConditions[0].expression: Invalid value: \"... [] bad\": \
                 compilation failed: ERROR: <input>:1:";
    assert!(message.starts_with(start), "{message}");

    let named = conditions("object.metadata.name != 'skip-me'", "Fail");
    let webhook = entry("named", hook.client("/"), "", "configmaps", named);
    configure(&c, "Mutating", "conditions", vec![webhook]).await;
    let seen = async |name: &str| {
        let made = c.post(MAPS, &config_map(name, "x")).await.expect(201);
        made["data"]["seen"] == "yes"
    };
    assert!(seen("a").await);
    assert!(!seen("skip-me").await);

    for (policy, code) in [("Fail", 403), ("Ignore", 201)] {
        c.delete(&format!("{path}/conditions")).await.expect(200);
        let undecidable = conditions("object.data.absent == 'x'", policy);
        let webhook = entry("undecidable", hook.client("/"), "", "configmaps", undecidable);
        configure(&c, "Mutating", "conditions", vec![webhook]).await;
        let made = c.post(MAPS, &config_map(&policy.to_lowercase(), "x")).await.expect(code);
        if code == 403 {
            let text = "configmaps \"fail\" is forbidden: expression 'object.data.absent == 'x'' \
                        resulted in error: no such key: absent";
            assert_eq!(made["message"], text);
        } else {
            assert!(made["data"]["seen"].is_null());
        }
    }
}

#[tokio::test]
async fn what_webhooks_make_of_a_subresource_is_what_happens() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["object"]["kind"].as_str().unwrap_or_default() {
            "PodExecOptions" => {
                patch(json!([{"op": "add", "path": "/container", "value": "other"}]))
            }
            "Eviction" => patch(json!([{"op": "add", "path": "/deleteOptions",
                "value": {"preconditions": {"uid": "another"}}}])),
            "Scale" => patch(json!([{"op": "replace", "path": "/spec/replicas", "value": -1}])),
            "Binding" => deny("not there"),
            "SelfSubjectReview" => deny("nobody asks"),
            _ => allow(),
        })
        .await;
    let everything = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"],
        "apiVersions": ["*"], "resources": ["pods/exec", "pods/eviction", "*/scale", "bindings",
            "selfsubjectreviews"]}]});
    let pods = "/api/v1/namespaces/default/pods";
    c.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "a"}}))
        .await
        .expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "a",
        "containers": [{"name": "c", "image": "i"}]}});
    c.post(pods, &pod).await.expect(201);
    let labels = json!({"app": "a"});
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 1,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    c.post(sets, &set).await.expect(201);
    configure(&c, "Mutating", "all", vec![entry("all", hook.client("/"), "", "", everything)])
        .await;

    let exec = format!("{pods}/p/exec?command=ls&stdout=true&container=c");
    let refused = c.post(&exec, &json!({})).await.expect(400);
    assert_eq!(refused["message"], "container other is not valid for pod p");
    c.post(&format!("{pods}/p/eviction"), &json!({"metadata": {"name": "p"}})).await.expect(409);
    let refused = c.patch(&format!("{sets}/s/scale"), &json!({"spec": {"replicas": 2}})).await;
    assert!(refused.expect(422)["message"].as_str().unwrap().contains("spec.replicas"));
    assert_eq!(c.get(&format!("{sets}/s")).await.expect(200)["spec"]["replicas"], 1);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let refused = c.post("/api/v1/namespaces/default/bindings", &binding).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("not there"));
    let review = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    c.post(review, &json!({})).await.expect(400);
}

#[tokio::test]
async fn a_patch_that_is_no_list_and_a_refusal_with_warnings() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|_, request| match request["name"].as_str().unwrap_or_default() {
            "odd" => patch(json!({"op": "add"})),
            _ => Reply::Answer(json!({"allowed": false, "warnings": ["für später"]})),
        })
        .await;
    let webhook = entry("odd", hook.client("/"), "", "configmaps", json!({}));
    configure(&c, "Mutating", "odd", vec![webhook]).await;
    let refused = c.post(MAPS, &config_map("odd", "x")).await.expect(500);
    assert!(refused["message"].as_str().unwrap().contains("not a list of operations"), "{refused}");
    let refused = c.post(MAPS, &config_map("warned", "x")).await;
    assert_eq!(refused.headers["warning"].as_bytes(), "299 - \"für später\"".as_bytes());
    refused.expect(400);
}

#[tokio::test]
async fn a_webhook_is_selected_by_the_labels_that_another_gave_a_namespace() {
    let (cluster, c) = Cluster::with_default_namespace().await;
    let hook = cluster
        .hook(|path, _| match path {
            "/labels" => {
                patch(json!([{"op": "add", "path": "/metadata/labels/watched", "value": "yes"}]))
            }
            _ => deny("watched"),
        })
        .await;
    let labels = |wanted: &str| json!({"namespaceSelector": {"matchLabels": {"watched": wanted}}});
    let on = |name: &str, path: &str, wanted: &str| {
        entry(name, hook.client(path), "", "namespaces", labels(wanted))
    };
    let webhooks = vec![on("labels", "/labels", "no"), on("denies", "/denies", "yes")];
    configure(&c, "Mutating", "namespaces", webhooks).await;
    let space = |watched: &str| json!({"metadata": {"name": "n", "labels": {"watched": watched}}});
    c.post("/api/v1/namespaces", &space("no")).await.expect(400);
    c.post("/api/v1/namespaces", &space("other")).await.expect(201);
}
