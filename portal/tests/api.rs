//! The REST API in one process, on a database of its own.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use marina_db::Db;
use marina_db::organizations::Role;
use marina_db::seal::Sealer;
use marina_db::users::NewUser;
use portal::live::Bell;
use portal::state::AppState;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Portal {
    app: Router,
    db: Db,
    one_time: String,
    _dir: tempfile::TempDir,
}

impl Portal {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        Sealer::create_key_file(&key).unwrap();
        let db = Db::open(&dir.path().join("db")).await.unwrap();
        let one_time = portal::setup::first_run(&db, false).await.unwrap().unwrap();
        let state = AppState {
            db: db.clone(),
            sealer: Sealer::load(&key).unwrap().into(),
            bell: Bell::start(db.clone(), Default::default()),
            logins: Default::default(),
            secure_cookies: false,
        };
        Self { app: portal::run::app(state), db, one_time, _dir: dir }
    }

    async fn raw(&self, request: Request<Body>) -> Response<Body> {
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request and returns status and body.
    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_with(token, method, path, body, &[]).await
    }

    async fn call_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Value::Null => request.body(Body::empty()),
            body => request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string())),
        };
        let response = self.raw(request.unwrap()).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status.as_u16(), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn token(&self) -> String {
        let body = json!({"login": "admin", "password": self.one_time,
            "new_password": "a much better one"});
        let (status, answer) = self.call("", "POST", "/api/v1/sign-in", body).await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// A user of another organization, with a token.
    async fn stranger(&self) -> String {
        let hash = portal::password::hash("strangers-pass".into()).await.unwrap();
        let mut tx = self.db.write().await.unwrap();
        let org = tx.create_organization("others").await.unwrap();
        let new = NewUser {
            login: "eve".into(),
            display_name: "Eve".into(),
            password_hash: hash,
            operator: false,
            must_change: false,
        };
        let user = tx.create_user(&new).await.unwrap();
        tx.set_role(&org.id, &user.id, Role::Owner).await.unwrap();
        tx.commit().await.unwrap();
        let body = json!({"login": "eve", "password": "strangers-pass"});
        let (_, answer) = self.call("", "POST", "/api/v1/sign-in", body).await;
        answer["token"].as_str().unwrap().to_owned()
    }
}

fn fields(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().into_iter().flatten();
    errors.filter_map(|error| error["field"].as_str()).collect()
}

#[tokio::test]
async fn a_one_time_password_must_be_replaced() {
    let portal = Portal::start().await;
    let body = json!({"login": "admin", "password": portal.one_time});
    let (status, problem) = portal.call("", "POST", "/api/v1/sign-in", body.clone()).await;
    assert_eq!(status, 403, "{problem}");
    let weak = json!({"login": "admin", "password": portal.one_time, "new_password": "short"});
    let (status, problem) = portal.call("", "POST", "/api/v1/sign-in", weak).await;
    assert_eq!((status, fields(&problem)), (422, vec!["new_password"]));
    let token = portal.token().await;
    let (status, me) = portal.call(&token, "GET", "/api/v1/me", Value::Null).await;
    assert_eq!((status, &me["login"], &me["role"]), (200, &json!("admin"), &json!("owner")));
    let (status, _) = portal.call("", "POST", "/api/v1/sign-in", body).await;
    assert_eq!(status, 401, "the one-time password is spent");
}

#[tokio::test]
async fn a_cluster_is_created_once_read_and_deleted() {
    let portal = Portal::start().await;
    let token = portal.token().await;
    let body = json!({"name": "demo", "control_plane": "ha"});
    let key = [("idempotency-key", "k1")];
    let clusters = "/api/v1/clusters";
    let path = clusters;
    let (status, first) = portal.call_with(&token, "POST", path, body.clone(), &key).await;
    assert_eq!(status, 201, "{first}");
    assert_eq!((&first["phase"], &first["version"]), (&json!("pending"), &json!("1.35")));
    let (status, again) = portal.call_with(&token, "POST", path, body.clone(), &key).await;
    assert_eq!((status, &again["id"]), (201, &first["id"]));
    let other = json!({"name": "other"});
    assert_eq!(portal.call_with(&token, "POST", path, other, &key).await.0, 409);
    assert_eq!(portal.call(&token, "POST", path, body.clone()).await.0, 409, "the name is taken");

    let (status, group) = portal
        .call(&token, "POST", "/api/v1/clusters/demo/node-groups", json!({"name": "w", "count": 2}))
        .await;
    assert_eq!((status, &group["count"]), (201, &json!(2)), "{group}");
    let path = "/api/v1/clusters/demo/node-groups/w";
    let stale = [("if-match", "\"9\"")];
    let three = json!({"count": 3});
    assert_eq!(portal.call_with(&token, "PATCH", path, three.clone(), &stale).await.0, 412);
    let (status, group) = portal.call(&token, "PATCH", path, three).await;
    assert_eq!((status, &group["count"], &group["generation"]), (200, &json!(3), &json!(2)));

    let (status, problem) =
        portal.call(&token, "GET", "/api/v1/clusters/demo/kubeconfig", Value::Null).await;
    assert_eq!(status, 409, "no address yet: {problem}");
    let (status, gone) = portal.call(&token, "DELETE", "/api/v1/clusters/demo", Value::Null).await;
    assert_eq!((status, &gone["phase"]), (202, &json!("deleting")));
    let (status, _) = portal
        .call(&token, "POST", "/api/v1/clusters/demo/node-groups", json!({"name": "x", "count": 1}))
        .await;
    assert_eq!(status, 409, "no new workers for a cluster that goes");
    let (status, problem) =
        portal.call(&token, "GET", "/api/v1/clusters/demo/kubeconfig", Value::Null).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("being deleted"), "{problem}");
    let (_, events) = portal.call(&token, "GET", "/api/v1/clusters/demo/events", Value::Null).await;
    assert_eq!(events["items"][0]["kind"], "ClusterDeletionRequested");

    let mut tx = portal.db.write().await.unwrap();
    tx.remove_cluster(&first["id"].as_str().unwrap().into()).await.unwrap();
    tx.commit().await.unwrap();
    let (status, problem) = portal.call_with(&token, "POST", clusters, body, &key).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("deleted since"), "{problem}");
}

#[tokio::test]
async fn bad_input_names_the_field() {
    let portal = Portal::start().await;
    let token = portal.token().await;
    let cases = [
        (json!({"name": "Bad_Name"}), "name"),
        (json!({"name": "a", "version": "1.2"}), "version"),
        (json!({"name": "a", "pod_cidr": "10.96.0.0/16"}), "service_cidr"),
        (json!({"name": "a", "surprise": 1}), "surprise"),
        (json!({"name": 7}), "name"),
    ];
    for (body, field) in cases {
        let (status, problem) = portal.call(&token, "POST", "/api/v1/clusters", body).await;
        assert_eq!((status, fields(&problem)), (422, vec![field]), "{problem}");
        assert_eq!(problem["type"], "/problems/invalid");
    }
    let (_, list) = portal.call(&token, "GET", "/api/v1/clusters", Value::Null).await;
    assert_eq!(list["items"], json!([]), "nothing half-made is left");

    let huge = json!({"name": "x".repeat(100_000)});
    assert_eq!(portal.call(&token, "POST", "/api/v1/clusters", huge).await.0, 413);
    let request = Request::post("/api/v1/clusters")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Body::from("{\"name\": "))
        .unwrap();
    let response = portal.raw(request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    for (path, field) in [("/none?wait=sometime", "wait"), ("?phase=nonsense", "phase")] {
        let path = format!("/api/v1/clusters{path}");
        let (status, problem) = portal.call(&token, "GET", &path, Value::Null).await;
        assert_eq!((status, fields(&problem)), (422, vec![field]), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("`degraded`"), "{problem}");
    }
    let unknown = portal.call(&token, "GET", "/api/v1/clusters?nope=1", Value::Null).await;
    assert_eq!((unknown.0, fields(&unknown.1)), (422, vec!["nope"]), "{}", unknown.1);
    for path in ["/api/v1/clusters/%ff", "/api/v1/tokens/%ff"] {
        let method = if path.contains("tokens") { "DELETE" } else { "GET" };
        let (status, problem) = portal.call(&token, method, path, Value::Null).await;
        assert_eq!((status, &problem["type"]), (400, &json!("/problems/bad-request")), "{path}");
    }
    assert_eq!(portal.call(&token, "GET", "/api/v1/nothing", Value::Null).await.0, 404);
    assert_eq!(portal.call(&token, "PUT", "/api/v1/clusters", Value::Null).await.0, 405);
}

/// Every operation in the document, with a cluster's name filled in.
fn operations() -> Vec<(String, String)> {
    let document = serde_json::to_value(portal::api::document()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{cluster}", "demo").replace("{group}", "w");
            all.push((method.to_uppercase(), path.replace("{token}", "nope")));
        }
    }
    all
}

#[tokio::test]
async fn every_route_wants_a_token_and_hides_foreign_clusters() {
    let portal = Portal::start().await;
    let (owner, stranger) = (portal.token().await, portal.stranger().await);
    portal.call(&owner, "POST", "/api/v1/clusters", json!({"name": "demo"})).await;
    let group = json!({"name": "w", "count": 1});
    portal.call(&owner, "POST", "/api/v1/clusters/demo/node-groups", group).await;
    let request = Request::get("/api/v1/me").body(Body::empty()).unwrap();
    assert_eq!(portal.raw(request).await.headers()["www-authenticate"], "Bearer");
    let operations = operations();
    assert!(operations.len() > 15, "{operations:?}");
    for (method, path) in operations.iter().filter(|(_, path)| !path.ends_with("/sign-in")) {
        for token in ["", "marina_0000"] {
            let (status, problem) = portal.call(token, method, path, Value::Null).await;
            assert_eq!(status, 401, "{method} {path}: {problem}");
        }
        if path.contains("demo") {
            let body = match method.as_str() {
                "POST" => json!({"name": "x", "count": 1}),
                "PATCH" => json!({"count": 9}),
                _ => Value::Null,
            };
            let (status, problem) = portal.call(&stranger, method, path, body).await;
            assert_eq!(status, 404, "{method} {path}: {problem}");
        }
    }
    assert_eq!(portal.call(&stranger, "GET", "/api/v1/hosts", Value::Null).await.0, 403);
}

#[tokio::test]
async fn tokens_are_shown_once_and_can_be_revoked() {
    let portal = Portal::start().await;
    let token = portal.token().await;
    let body = json!({"name": "ci", "scope": "read", "ttl_days": 7});
    let (status, minted) = portal.call(&token, "POST", "/api/v1/tokens", body).await;
    assert_eq!(status, 201, "{minted}");
    let reader = minted["token"].as_str().unwrap();
    assert_eq!(portal.call(reader, "GET", "/api/v1/clusters", Value::Null).await.0, 200);
    let another = json!({"name": "another", "scope": "read"});
    assert_eq!(portal.call(reader, "POST", "/api/v1/tokens", another).await.0, 403);
    let long = json!({"name": "long", "ttl_days": 365});
    let (status, long) = portal.call(&token, "POST", "/api/v1/tokens", long).await;
    assert_eq!(status, 201, "{long}");
    let (_, list) = portal.call(&token, "GET", "/api/v1/tokens", Value::Null).await;
    let own = list["items"].as_array().unwrap().iter().find(|item| item["name"] == "cli");
    assert_eq!(long["expires_ms"], own.unwrap()["expires_ms"], "as long as its maker");
    let new = json!({"name": "demo"});
    assert_eq!(portal.call(reader, "POST", "/api/v1/clusters", new).await.0, 403);
    let (_, list) = portal.call(&token, "GET", "/api/v1/tokens", Value::Null).await;
    assert!(!list.to_string().contains(reader));
    let path = format!("/api/v1/tokens/{}", minted["id"].as_str().unwrap());
    assert_eq!(portal.call(&token, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(portal.call(reader, "GET", "/api/v1/clusters", Value::Null).await.0, 401);
}

#[tokio::test]
async fn a_sign_in_replaces_the_token_of_its_own_name_only() {
    let portal = Portal::start().await;
    let first = portal.token().await;
    let sign_in =
        |name: &str| json!({"login": "admin", "password": "a much better one", "token_name": name});
    for name in ["", "x\ny", &"x".repeat(61)] {
        let (status, problem) = portal.call("", "POST", "/api/v1/sign-in", sign_in(name)).await;
        assert_eq!((status, fields(&problem)), (422, vec!["token_name"]), "{name:?}");
    }
    let works =
        async |token: &str| portal.call(token, "GET", "/api/v1/me", Value::Null).await.0 == 200;
    let mut tokens = Vec::new();
    for name in ["one", "two", "two"] {
        let (_, answer) = portal.call("", "POST", "/api/v1/sign-in", sign_in(name)).await;
        tokens.push(answer["token"].as_str().unwrap().to_owned());
    }
    assert!(works(&first).await && works(&tokens[0]).await && works(&tokens[2]).await);
    assert!(!works(&tokens[1]).await, "replaced");
}

/// The committed document is what the code serves. `MARINA_WRITE_OPENAPI=1` writes it anew.
#[test]
fn the_openapi_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let served = serde_json::to_string_pretty(&portal::api::document()).unwrap() + "\n";
    if std::env::var_os("MARINA_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        served == committed,
        "portal/openapi.json is out of date: MARINA_WRITE_OPENAPI=1 cargo test -p portal"
    );
}
