//! As much of an API server as a kubelet needs: objects as JSON by path; get, list, watch,
//! create, merge patch and delete. It checks and defaults nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    /// Path, type and object of each change; the index is the revision.
    log: Vec<(String, &'static str, Value)>,
}

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    bell: Arc<watch::Sender<u64>>,
    port: u16,
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Collections end in a plural; everything else names an object.
fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
    matches!(rest, ["namespaces", _, _] | [_])
}

/// `/api/v1/pods` lists what is below `/api/v1/namespaces/*/pods/`.
fn belongs(collection: &str, object: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    if parent == collection {
        return true;
    }
    let (Some((group, plural)), Some((_, kind))) =
        (collection.rsplit_once('/'), parent.rsplit_once('/'))
    else {
        return false;
    };
    plural == kind && parent.starts_with(&format!("{group}/namespaces/"))
}

fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn not_found(path: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "reason": "NotFound", "message": format!("{path} not found")});
    respond(StatusCode::NOT_FOUND, &status)
}

impl FakeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let api = Self { state: Arc::default(), bell: Arc::new(watch::Sender::new(0)), port };
        let served = api.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let api = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let api = api.clone();
                        async move { Ok::<_, Infallible>(api.serve(request).await) }
                    });
                    let builder =
                        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        api
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Objects below a path.
    pub fn list(&self, collection: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state
            .objects
            .iter()
            .filter(|(path, _)| belongs(collection, path))
            .map(|(_, o)| o.clone())
            .collect()
    }

    fn change(&self, path: &str, kind: &'static str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        match kind {
            "DELETED" => drop(state.objects.remove(path)),
            _ => drop(state.objects.insert(path.to_owned(), object.clone())),
        }
        state.log.push((path.to_owned(), kind, object.clone()));
        self.bell.send_replace(state.revision);
        object
    }

    pub fn create(&self, collection: &str, mut object: Value) -> Value {
        let uid = format!("uid-{}", self.state.lock().unwrap().revision + 1);
        let prefix = object["metadata"]["generateName"].as_str().map(|p| format!("{p}{uid}"));
        if let Some(name) = prefix {
            object["metadata"]["name"] = json!(name);
        }
        object["metadata"]["uid"] = json!(uid);
        let name = object["metadata"]["name"].as_str().expect("objects have names").to_owned();
        self.change(&format!("{collection}/{name}"), "ADDED", object)
    }

    pub fn patch(&self, path: &str, patch: &Value) -> Option<Value> {
        let mut object = self.get(path)?;
        let mut patch = patch.clone();
        if let Some(meta) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
        }
        merge(&mut object, &patch);
        Some(self.change(path, "MODIFIED", object))
    }

    /// What `kubectl delete` does: the pod is marked, the kubelet removes it.
    pub fn delete_gracefully(&self, path: &str, seconds: i64) {
        let now = jiff::Timestamp::now().to_string();
        self.patch(
            path,
            &json!({"metadata": {"deletionTimestamp": now, "deletionGracePeriodSeconds": seconds}}),
        );
    }

    pub fn remove(&self, path: &str) {
        if let Some(object) = self.get(path) {
            self.change(path, "DELETED", object);
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let object = path.trim_end_matches("/status").to_owned();
        match parts.method {
            Method::GET if is_collection(&path) && query.contains("watch=") => {
                self.watch(&path, &query)
            }
            Method::GET if is_collection(&path) => {
                let items = self.list(&path);
                let revision = self.state.lock().unwrap().revision.to_string();
                let metadata = json!({"resourceVersion": revision});
                respond(
                    StatusCode::OK,
                    &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
                )
            }
            Method::GET => {
                self.get(&path).map_or_else(|| not_found(&path), |o| respond(StatusCode::OK, &o))
            }
            Method::POST => respond(StatusCode::CREATED, &self.create(&path, json)),
            Method::PATCH => self
                .patch(&object, &json)
                .map_or_else(|| not_found(&path), |o| respond(StatusCode::OK, &o)),
            Method::DELETE => {
                self.remove(&path);
                respond(
                    StatusCode::OK,
                    &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
                )
            }
            _ => respond(StatusCode::METHOD_NOT_ALLOWED, &json!({})),
        }
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let from = query
            .split('&')
            .find_map(|p| p.strip_prefix("resourceVersion="))
            .and_then(|v| v.parse().ok());
        let (api, collection, bell) = (self.clone(), path.to_owned(), self.bell.subscribe());
        let start: usize = from.unwrap_or(0);
        let events = futures::stream::unfold((start, bell), move |(mut at, mut bell)| {
            let (api, collection) = (api.clone(), collection.clone());
            async move {
                loop {
                    bell.borrow_and_update();
                    let found = {
                        let state = api.state.lock().unwrap();
                        state.log.get(at..).unwrap_or_default().to_vec()
                    };
                    at += found.len();
                    let lines: String = found
                        .into_iter()
                        .filter(|(path, _, _)| belongs(&collection, path))
                        .map(|(_, kind, object)| {
                            format!("{}\n", json!({"type": kind, "object": object}))
                        })
                        .collect();
                    if !lines.is_empty() {
                        return Some((
                            Ok::<_, Infallible>(Frame::data(Bytes::from(lines))),
                            (at, bell),
                        ));
                    }
                    bell.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(StreamExt::boxed(events)).boxed_unsync())
    }
}
