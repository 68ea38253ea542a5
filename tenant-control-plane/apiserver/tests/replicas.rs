//! Several API servers of one cluster: allocations, endpoints, identities.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::Cluster;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}},
    })
}

#[tokio::test]
async fn addresses_and_ports_are_given_once() {
    let mut cluster = Cluster::start().await;
    cluster.add_server().await;
    let clients = [cluster.admin(), cluster.client_of(1, "admin", "system:masters")];
    let mut made = Vec::new();
    for i in 0..12 {
        let client = clients[i % 2].clone();
        made.push(tokio::spawn(async move {
            client.post(SERVICES, &service(&format!("s{i}"))).await.expect(201)
        }));
    }
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for one in made {
        let one = one.await.unwrap();
        ips.insert(one["spec"]["clusterIP"].as_str().unwrap().to_owned());
        ports.insert(one["spec"]["ports"][0]["nodePort"].as_u64().unwrap());
    }
    assert_eq!((ips.len(), ports.len()), (12, 12));

    let c = &clients[0];
    let mut taken = service("taken");
    taken["spec"]["clusterIP"] = ips.first().unwrap().clone().into();
    c.post(SERVICES, &taken).await.expect(422);
    let mut taken = service("taken");
    taken["spec"]["ports"][0]["nodePort"] = (*ports.first().unwrap()).into();
    let refused = c.post(SERVICES, &taken).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("provided port is already allocated"));

    // What is given back can be taken again, also through the other server.
    let first = c.get(&format!("{SERVICES}/s0")).await.expect(200);
    c.delete(&format!("{SERVICES}/s0")).await.expect(200);
    let mut again = service("again");
    again["spec"]["clusterIP"] = first["spec"]["clusterIP"].clone();
    again["spec"]["ports"][0]["nodePort"] = first["spec"]["ports"][0]["nodePort"].clone();
    common::wait("the address is free on the other server", async || {
        clients[1].post(SERVICES, &again).await.code == 201
    })
    .await;
    let plain = c
        .patch(&format!("{SERVICES}/again"), &json!({"spec": {"type": "ClusterIP"}}))
        .await
        .expect(200);
    assert!(plain["spec"]["ports"][0]["nodePort"].is_null());

    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    common::wait("both servers are endpoints", async || {
        c.get(endpoints).await.json()["subsets"].as_array().is_some_and(|s| s.len() == 2)
    })
    .await;
    let pid = cluster.servers[1].process.0.id().to_string();
    std::process::Command::new("kill").arg(&pid).status().unwrap();
    common::wait("the one that ended is no endpoint", async || {
        c.get(endpoints).await.json()["subsets"].as_array().is_some_and(|s| s.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn who_may_do_what() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let anonymous = cluster.client("", "");
    assert_eq!(anonymous.get("/healthz").await.code, 200);
    assert_eq!(anonymous.get("/api/v1/nodes").await.expect(403)["reason"], "Forbidden");
    let mut liar = anonymous.clone();
    liar.token = Some("garbage".into());
    assert_eq!(liar.get("/api/v1/nodes").await.expect(401)["reason"], "Unauthorized");

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.expect(201);
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = admin.post(&format!("{accounts}/robot/token"), &request).await.expect(201);
    let mut robot = anonymous.clone();
    robot.token = Some(token["status"]["token"].as_str().unwrap().to_owned());
    let maps = "/api/v1/namespaces/default/configmaps";
    robot.get(maps).await.expect(403);
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    admin.post(&format!("{rbac}/roles"), &role).await.expect(201);
    let binding = json!({
        "metadata": {"name": "rb"}, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);
    robot.get(maps).await.expect(200);
    robot.get("/api/v1/configmaps").await.expect(403);

    let as_robot = [
        ("impersonate-user", "system:serviceaccount:default:robot"),
        ("content-type", "application/json"),
    ];
    let review = json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "configmaps"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = admin.request("POST", path, &as_robot, review.to_string()).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let keys = robot.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(keys["keys"][0]["kty"], "EC");
}

#[tokio::test]
async fn discovery_and_schemas_are_complete() {
    let cluster = Cluster::start().await;
    let c = cluster.admin();
    assert_eq!(c.get("/version").await.expect(200)["minor"], "35");
    let groups = c.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            assert_eq!(c.get(&path).await.expect(200)["kind"], "APIResourceList");
        }
    }
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    )];
    let aggregated = c.request("GET", "/apis", &accept, "").await.expect(200);
    assert_eq!(aggregated["kind"], "APIGroupDiscoveryList");
    let index = c.get("/openapi/v3").await.expect(200);
    for (path, entry) in index["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        assert!(c.get(url).await.expect(200)["components"].is_object(), "{path}");
    }
}
