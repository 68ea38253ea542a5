//! `/healthz`, `/livez` and `/readyz` with named checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::api::Api;
use crate::http::query::Query;
use crate::http::{Response, respond};

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What has happened so far in this process's life.
#[derive(Default)]
pub struct Health {
    bootstrapped: AtomicBool,
    shutting_down: AtomicBool,
}

impl Health {
    /// Everything that a start has to ensure is there.
    pub fn bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Relaxed);
    }

    /// From now on the server is not ready.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }
}

const LIVE: &[&str] = &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];
const READY: &[&str] = &[
    "ping",
    "log",
    "etcd",
    "informer-sync",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "shutdown",
];

async fn check(api: &Api, name: &str) -> Result<(), String> {
    let health = &api.health;
    match name {
        "etcd" => match tokio::time::timeout(CHECK_TIMEOUT, api.store.current_revision()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.message),
            Err(_) => Err("etcd did not answer in time".to_owned()),
        },
        "shutdown" if health.shutting_down.load(Ordering::Relaxed) => {
            Err("process is shutting down".to_owned())
        }
        hook if hook.starts_with("poststarthook/")
            && !health.bootstrapped.load(Ordering::Relaxed) =>
        {
            Err("not finished".to_owned())
        }
        _ => Ok(()),
    }
}

/// Answers a health path.
pub async fn handle(api: Arc<Api>, path: String, query: Query) -> Response {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or_default().to_owned();
    let one = parts.next().unwrap_or_default().to_owned();
    let names = if endpoint == "readyz" { READY } else { LIVE };
    if !one.is_empty() {
        let Some(name) = names.iter().find(|n| **n == one) else {
            return respond::error(&crate::registry::no_resource());
        };
        return match check(&api, name).await {
            Ok(()) => respond::text(StatusCode::OK, "ok"),
            Err(why) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {why}\n"),
            ),
        };
    }
    let excluded: Vec<String> = query.all("exclude").map(str::to_owned).collect();
    let (mut text, mut failed) = (String::new(), false);
    for name in names {
        if excluded.iter().any(|e| e == name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(&api, name).await {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            // The reason is for the log: anyone may read this page.
            Err(why) => {
                tracing::info!(check = name, why, "a health check failed");
                failed = true;
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    match (failed, query.get("verbose").is_some()) {
        (true, _) => respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{text}{endpoint} check failed\n"),
        ),
        (false, true) => respond::text(StatusCode::OK, format!("{text}{endpoint} check passed\n")),
        (false, false) => respond::text(StatusCode::OK, "ok"),
    }
}
