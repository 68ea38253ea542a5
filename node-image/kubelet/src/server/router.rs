//! From a path to what serves it.

use std::collections::HashMap;
use std::sync::Arc;

use component::ObjectKey;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::streams::{self, Stream};
use super::{Body, auth, json, logs, stats, text};
use crate::node::Node;
use crate::spec::containers;

/// The query's parameters in order; a name may come several times.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let hex = [ahead.next(), ahead.next()]
                    .map(|b| b.and_then(|b| char::from(b).to_digit(16)));
                if let [Some(high), Some(low)] = hex {
                    out.push((high * 16 + low) as u8);
                    bytes = ahead;
                } else {
                    out.push(b'%');
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    /// Parses what comes after the `?`.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == name).map(|(_, v)| v.clone()).collect()
    }

    /// Whether any of the names is `1` or `true`.
    pub fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|n| matches!(self.get(n), Some("1" | "true" | "True" | "t")))
    }
}

/// Finds a pod of this node; `uid` as a further check when given.
#[allow(clippy::result_large_err)] // The error is the answer that is sent.
pub fn find_pod(
    node: &Node,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<Arc<Pod>, Response<Body>> {
    let found = node.pods.get(&ObjectKey::new(namespace, name));
    found
        .filter(|pod| uid.is_none_or(|uid| containers::uid(pod) == uid))
        .ok_or_else(|| text(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
}

fn pod_list(node: &Node) -> Response<Body> {
    let pods = node.pods.list();
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {},
        "items": pods.iter().map(|p| &**p).collect::<Vec<_>>()}))
}

/// Serves one request.
pub async fn serve(
    node: &Arc<Node>,
    certificate: Option<&auth::Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Err((status, why)) =
        auth::check(node, certificate, request.method(), &path, request.headers()).await
    {
        return text(status, why);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop" | "log"] if get => text(StatusCode::OK, "ok"),
        ["pods"] | ["runningpods"] if get => pod_list(node),
        ["configz"] if get => json(&HashMap::from([("kubeletconfig", &node.config.file)])),
        ["metrics"] if get => text(StatusCode::OK, component::metrics::render()),
        ["metrics", "resource"] if get => stats::resource_metrics(node).await,
        ["metrics", "cadvisor" | "probes"] if get => text(StatusCode::OK, ""),
        ["stats", "summary"] | ["stats"] if get => stats::summary(node).await,
        ["containerLogs", namespace, pod, container] if get => {
            logs::serve(node, namespace, pod, container, &query).await
        }
        ["exec", namespace, pod, container] => {
            streams::serve(node, (namespace, pod, None), Stream::Exec(container), &query, request)
                .await
        }
        ["exec", namespace, pod, uid, container] => {
            streams::serve(
                node,
                (namespace, pod, Some(uid)),
                Stream::Exec(container),
                &query,
                request,
            )
            .await
        }
        ["attach", namespace, pod, container] => {
            streams::serve(node, (namespace, pod, None), Stream::Attach(container), &query, request)
                .await
        }
        ["attach", namespace, pod, uid, container] => {
            streams::serve(
                node,
                (namespace, pod, Some(uid)),
                Stream::Attach(container),
                &query,
                request,
            )
            .await
        }
        ["portForward", namespace, pod] => {
            streams::serve(node, (namespace, pod, None), Stream::PortForward, &query, request).await
        }
        ["portForward", namespace, pod, uid] => {
            streams::serve(node, (namespace, pod, Some(uid)), Stream::PortForward, &query, request)
                .await
        }
        ["run", namespace, pod, container] if *request.method() == Method::POST => {
            streams::run(node, (namespace, pod, container), &query).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::parse("command=sh&command=-c&command=echo+a%20b%2&tty=1&x");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a b%2"]);
        assert!(query.flag(&["tty"]) && !query.flag(&["stdin", "input"]));
        assert_eq!(query.get("x"), Some(""));
    }
}
