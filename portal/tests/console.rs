//! The console's pages and forms, in one process.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use http_body_util::BodyExt;
use marina_db::Db;
use marina_db::seal::Sealer;
use portal::live::Bell;
use portal::state::AppState;
use tower::ServiceExt;

struct Console {
    app: Router,
    one_time: String,
    cookie: String,
    _dir: tempfile::TempDir,
}

impl Console {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        Sealer::create_key_file(&key).unwrap();
        let db = Db::open(&dir.path().join("db")).await.unwrap();
        let one_time = portal::setup::first_run(&db, false).await.unwrap().unwrap();
        let state = AppState {
            bell: Bell::start(db.clone(), Default::default()),
            db,
            sealer: Sealer::load(&key).unwrap().into(),
            logins: Default::default(),
            secure_cookies: true,
        };
        Self { app: portal::run::app(state), one_time, cookie: String::new(), _dir: dir }
    }

    async fn send(&self, request: Request<Body>) -> (Response<()>, String) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, path: &str) -> (Response<()>, String) {
        let request = Request::get(path).header("cookie", &self.cookie).body(Body::empty());
        self.send(request.unwrap()).await
    }

    async fn post(&self, path: &str, form: &str, site: &str) -> (Response<()>, String) {
        let request = Request::post(path)
            .header("cookie", &self.cookie)
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()));
        self.send(request.unwrap()).await
    }

    /// Signs in, and keeps the cookie.
    async fn sign_in(&mut self, password: &str) {
        let form = format!("login=admin&password={password}");
        let (response, page) = self.post("/sign-in", &form, "same-origin").await;
        assert_eq!(response.status(), 303, "{page}");
        self.keep_cookie(&response);
    }

    fn keep_cookie(&mut self, response: &Response<()>) {
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        for part in ["HttpOnly", "SameSite=Lax", "Secure"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        self.cookie = cookie.split(';').next().unwrap().to_owned();
    }

    /// Signs in and replaces the one-time password; returns the token of forms.
    async fn enter(&mut self) -> String {
        self.sign_in(&self.one_time.clone()).await;
        let (response, _) = self.get("/clusters").await;
        assert_eq!(response.headers()["location"], "/password", "first the password");
        let (_, page) = self.get("/password").await;
        let form = format!(
            "csrf={}&old_password={}&new_password=a+much+better+one",
            csrf(&page),
            self.one_time
        );
        let (response, page) = self.post("/password", &form, "same-origin").await;
        assert_eq!(response.status(), 303, "{page}");
        self.keep_cookie(&response);
        csrf(&self.get("/clusters/new").await.1)
    }
}

fn csrf(page: &str) -> String {
    let rest = page.split("name=\"csrf\" value=\"").nth(1).expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn pages_want_a_session_and_carry_security_headers() {
    let console = Console::start().await;
    for path in ["/clusters", "/clusters/new", "/tokens", "/hosts", "/activity", "/live/clusters"] {
        let (response, _) = console.get(path).await;
        assert_eq!(response.headers()["location"], "/sign-in", "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let (response, page) = console.get("/nowhere").await;
    assert_eq!(response.status(), 404);
    assert!(page.contains("There is no such page."));
}

#[tokio::test]
async fn a_cluster_is_made_by_the_form_only_with_its_token_and_from_this_site() {
    let mut console = Console::start().await;
    let token = console.enter().await;
    let form = |csrf: &str| format!("csrf={csrf}&name=demo&control_plane=ha&driver=sandbox");
    let (response, _) = console.post("/clusters", &form(&token), "cross-site").await;
    assert_eq!(response.status(), 403);
    let (response, _) = console.post("/clusters", &form("guess"), "same-origin").await;
    assert_eq!(response.status(), 403);
    let (_, page) = console.get("/clusters").await;
    assert!(page.contains("No clusters yet"), "{page}");
    let (response, page) = console.post("/clusters", &form(&token), "same-origin").await;
    assert_eq!(response.status(), 303, "{page}");
    let cluster = response.headers()["location"].to_str().unwrap().to_owned();
    let (response, page) = console.get(&cluster).await;
    assert_eq!(response.status(), 200);
    assert!(page.contains("highly available") && page.contains("data-testid=\"phase\""), "{page}");

    let wrong = format!("csrf={token}&confirm=dem");
    let (response, page) = console.post(&format!("{cluster}/delete"), &wrong, "same-origin").await;
    assert_eq!(response.status(), 422);
    assert!(page.contains("must be the cluster&#39;s name"), "{page}");
    let right = format!("csrf={token}&confirm=demo");
    let (response, _) = console.post(&format!("{cluster}/delete"), &right, "same-origin").await;
    assert_eq!(response.status(), 303);
    assert!(console.get(&cluster).await.1.contains("deleting"));
}

#[tokio::test]
async fn what_was_typed_stays_and_is_never_markup() {
    let mut console = Console::start().await;
    let token = console.enter().await;
    let form = format!("csrf={token}&name=%3Cscript%3E&pod_cidr=10.96.0.0%2F16&driver=qemu");
    let (response, page) = console.post("/clusters", &form, "same-origin").await;
    assert_eq!(response.status(), 422);
    assert!(!page.contains("<script>\""), "escaped");
    assert!(page.contains("&#60;script&#62;"), "what was typed stays: {page}");
    assert!(page.contains("10.96.0.0/16") && page.contains("overlaps"), "beside its field");
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let mut console = Console::start().await;
    let token = console.enter().await;
    let (response, _) = console.post("/sign-out", &format!("csrf={token}"), "same-origin").await;
    assert_eq!(response.status(), 303);
    assert_eq!(console.get("/clusters").await.0.headers()["location"], "/sign-in");
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_a_page() {
    let mut console = Console::start().await;
    let token = console.enter().await;
    let html = |response: &Response<()>| {
        response.headers()["content-type"].to_str().unwrap().starts_with("text/html")
    };
    let (response, page) = console.get("/clusters/%ff").await;
    assert!(response.status() == 400 && html(&response), "{page}");

    let group = format!("csrf={token}&name=w&count=abc&driver=qemu");
    let scale = format!("csrf={token}");
    let huge = format!("csrf={token}&name={}", "x".repeat(100_000));
    for (path, form, status, says) in [
        ("/clusters/demo/node-groups", group, 422, "count"),
        ("/clusters/demo/node-groups/w/scale", scale, 422, "count"),
        ("/clusters", huge, 413, "limit"),
    ] {
        let (response, page) = console.post(path, &form, "same-origin").await;
        assert_eq!(response.status(), status, "{page}");
        assert!(html(&response) && page.contains(says), "{path}: {page}");
    }
    let request = Request::post("/clusters")
        .header("cookie", &console.cookie)
        .header("sec-fetch-site", "same-origin")
        .body(Body::from("{}"));
    let (response, page) = console.send(request.unwrap()).await;
    assert!(response.status() == 415 && html(&response), "{page}");
}
