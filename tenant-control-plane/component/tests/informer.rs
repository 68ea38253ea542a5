//! An informer against an API server that forgets: whatever the server answers to a watch, the cache
//! ends up with what the server has.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use component::{Informer, ObjectKey};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;
use kube::{Api, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

type Body = BoxBody<Bytes, Infallible>;

/// How the server refuses a watch from a version that it no longer has.
#[derive(Clone, Copy)]
enum Refusal {
    /// As the answer to the request.
    Status,
    /// As an event in the stream.
    Event,
}

struct Server {
    objects: Mutex<Vec<Value>>,
    lists: AtomicUsize,
    refusal: Refusal,
    /// Events for open watches; `None` ends them.
    events: broadcast::Sender<Option<Value>>,
    /// Watches opened so far.
    watches: AtomicUsize,
    /// Watches to refuse.
    refuse: AtomicUsize,
}

fn map(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "ns", "uid": name, "resourceVersion": version.to_string()}})
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed()
}

impl Server {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !request.uri().query().unwrap_or_default().contains("watch=true") {
            self.lists.fetch_add(1, Ordering::SeqCst);
            let items = self.objects.lock().unwrap().clone();
            let list = json!({"apiVersion": "v1", "kind": "ConfigMapList",
                "metadata": {"resourceVersion": "100"}, "items": items});
            return Response::new(full(list.to_string()));
        }
        let refused =
            self.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if refused.is_ok() {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "reason": "Expired", "code": 410, "message": "too old resource version"});
            return match self.refusal {
                Refusal::Status => {
                    let mut response = Response::new(full(status.to_string()));
                    *response.status_mut() = StatusCode::GONE;
                    response
                }
                Refusal::Event => {
                    let event = json!({"type": "ERROR", "object": status});
                    Response::new(full(format!("{event}\n")))
                }
            };
        }
        let events = self.events.subscribe();
        self.watches.fetch_add(1, Ordering::SeqCst);
        let stream = futures::stream::unfold(events, |mut events| async move {
            let event = events.recv().await.ok().flatten()?;
            Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events))
        });
        Response::new(StreamBody::new(stream).boxed())
    }
}

async fn serve(refusal: Refusal) -> (Arc<Server>, Arc<Informer<ConfigMap>>, CancellationToken) {
    let server = Arc::new(Server {
        objects: Mutex::new(vec![map("a", 1), map("b", 2)]),
        lists: AtomicUsize::new(0),
        refusal,
        events: broadcast::Sender::new(16),
        watches: AtomicUsize::new(0),
        refuse: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = server.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let server = answering.clone();
            let service = service_fn(move |request| {
                let response = server.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let http = auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(tcp), service).await;
            });
        }
    });
    let client = component::client::from_config(Config::new(url.parse().unwrap()), "test").unwrap();
    let informer = Arc::new(Informer::new(Api::all(client), watcher::Config::default()));
    let stop = CancellationToken::new();
    informer.start(stop.clone());
    tokio::time::timeout(Duration::from_secs(10), informer.wait_synced()).await.unwrap();
    (server, informer, stop)
}

/// Waits until the cache holds exactly these names.
async fn holds(informer: &Informer<ConfigMap>, wanted: &[&str]) {
    let names = || {
        let all = informer.list();
        all.iter().map(|map| map.metadata.name.clone().unwrap()).collect::<Vec<_>>()
    };
    let reached = async {
        while names() != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "wanted {wanted:?}, the cache holds {:?}", names());
}

/// Sends an event once the informer's watch is open.
async fn send(server: &Server, event: Option<Value>) {
    let sent = async {
        while server.events.send(event.clone()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), sent).await.expect("the watch opens");
}

/// Ends the open watch and waits for the next one.
async fn interrupt(server: &Server) {
    let before = server.watches.load(Ordering::SeqCst);
    send(server, None).await;
    let reopened = async {
        while server.watches.load(Ordering::SeqCst) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reopened).await.expect("the watch reopens");
}

#[tokio::test]
async fn a_cache_follows_its_watch() {
    let (server, informer, stop) = serve(Refusal::Event).await;
    holds(&informer, &["a", "b"]).await;
    send(&server, Some(json!({"type": "ADDED", "object": map("c", 101)}))).await;
    holds(&informer, &["a", "b", "c"]).await;
    send(&server, Some(json!({"type": "DELETED", "object": map("a", 102)}))).await;
    holds(&informer, &["b", "c"]).await;
    interrupt(&server).await;
    send(&server, Some(json!({"type": "ADDED", "object": map("d", 103)}))).await;
    holds(&informer, &["b", "c", "d"]).await;
    assert_eq!(server.lists.load(Ordering::SeqCst), 1, "an interrupted watch is resumed");
    stop.cancel();
}

#[tokio::test]
async fn a_version_that_is_too_old_leads_to_a_new_list() {
    for refusal in [Refusal::Status, Refusal::Event] {
        let (server, informer, stop) = serve(refusal).await;
        holds(&informer, &["a", "b"]).await;
        *server.objects.lock().unwrap() = vec![map("b", 150), map("z", 151)];
        server.refuse.store(2, Ordering::SeqCst);
        send(&server, None).await;
        holds(&informer, &["b", "z"]).await;
        stop.cancel();
    }
}

#[tokio::test]
async fn what_was_written_is_seen_at_once_and_only_once() {
    let (server, informer, stop) = serve(Refusal::Event).await;
    let changes = Arc::new(AtomicUsize::new(0));
    let counter = changes.clone();
    informer.on_change(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let written: ConfigMap = serde_json::from_value(map("mine", 101)).unwrap();
    informer.observe(written);
    assert!(informer.get(&ObjectKey::new("ns", "mine")).is_some());
    send(&server, Some(json!({"type": "ADDED", "object": map("mine", 101)}))).await;
    send(&server, Some(json!({"type": "ADDED", "object": map("other", 102)}))).await;
    holds(&informer, &["a", "b", "mine", "other"]).await;
    assert_eq!(changes.load(Ordering::SeqCst), 2, "the echo of an own write is no change");
    stop.cancel();
}
