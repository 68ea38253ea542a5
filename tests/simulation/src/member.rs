//! One member of the cluster: the real server, on a simulated host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use etcd::config::Config;
use etcd::flags::Flags;
use etcd::node::Node;
use etcd::raft::network::Dial;
use etcd::run::{Member, begin};
use etcd::server::{Serve, client_routes, peer_routes, serve_stream};
use etcd_api::client::connect_through;
use http_body_util::BodyExt;
use hyper_util::server::graceful::GracefulShutdown;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::UnboundedReceiver;
use tower::ServiceExt;

use crate::clients::{CLIENT_PORT, Connector, PEER_PORT, url};
use crate::disk::SimDisk;
use crate::net::{HostId, Net, Stream};

/// The node of a process that runs, for looking into it at the end.
pub type Window = Arc<Mutex<Option<Arc<Node>>>>;

/// How a member is started.
#[derive(Clone)]
pub struct Start {
    /// Where.
    pub host: HostId,
    /// `--initial-cluster`, as hosts.
    pub initial: Vec<HostId>,
    /// Whether it joins.
    pub existing: bool,
    /// `--snapshot-count`.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`.
    pub catchup_entries: u64,
}

impl Start {
    fn config(&self) -> anyhow::Result<Config> {
        let name = |host: &HostId| format!("m{host}");
        let cluster: Vec<String> =
            self.initial.iter().map(|h| format!("{}={}", name(h), url(*h, PEER_PORT))).collect();
        let peer = url(self.host, PEER_PORT);
        let client = url(self.host, CLIENT_PORT);
        let state = if self.existing { "existing" } else { "new" };
        let flags = [
            "etcd".to_owned(),
            format!("--name={}", name(&self.host)),
            "--data-dir=/data".to_owned(),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--initial-cluster={}", cluster.join(",")),
            format!("--initial-cluster-state={state}"),
            format!("--snapshot-count={}", self.snapshot_count),
            format!("--snapshot-catchup-entries={}", self.catchup_entries),
            "--watch-progress-notify-interval=2s".to_owned(),
        ];
        let (flags, _) = Flags::read(flags.into_iter().map(Into::into))?;
        Config::from_flags(flags)
    }
}

/// Runs a member until raft stops.
pub async fn run(
    start: Start,
    disk: SimDisk,
    net: Net,
    seed: u64,
    window: Window,
) -> anyhow::Result<()> {
    let host = start.host;
    let config = Arc::new(start.config()?);
    let (peers, clients) = (net.listen((host, PEER_PORT)), net.listen((host, CLIENT_PORT)));
    let connector = Connector { net, from: host };
    let dial: Dial = Arc::new(move |node| connect_through(&node.peer_urls, connector.clone()));
    let member = Member::open(config, Arc::new(disk), dial).await?;
    let node = member.start().await?;
    let routes = peer_routes(&node).into_axum_router();
    let unreliable = Unreliable {
        routes: routes.clone(),
        random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
    };
    let routes = routes.layer(axum::middleware::from_fn_with_state(unreliable, pass));
    tokio::spawn(accept(peers, Arc::clone(&node), Serve::Peers(routes.into())));
    begin(&node).await?;
    tokio::spawn(accept(clients, Arc::clone(&node), Serve::Clients(client_routes(&node))));
    *window.lock().expect("no panic while held") = Some(Arc::clone(&node));
    bail!("raft has stopped: {}", node.consensus.wait_failure().await)
}

async fn accept(mut streams: UnboundedReceiver<Stream>, node: Arc<Node>, what: Serve) {
    let graceful = GracefulShutdown::new();
    while let Some(stream) = streams.recv().await {
        let served =
            serve_stream(stream, None, Arc::clone(&node), what.clone(), graceful.watcher());
        // How a connection ends is the other side's affair.
        tokio::spawn(async move { drop(served.await) });
    }
}

/// Raft's messages may be late, overtake each other, and come twice.
#[derive(Clone)]
struct Unreliable {
    routes: axum::Router,
    random: Arc<Mutex<StdRng>>,
}

/// Messages that raft itself must be able to take twice.
const RAFT: [&str; 4] = ["Append", "Vote", "PreVote", "TransferLeader"];

async fn pass(State(unreliable): State<Unreliable>, request: Request, next: Next) -> Response {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    if !RAFT.contains(&method) {
        return next.run(request).await;
    }
    let (late, twice) = {
        let mut random = unreliable.random.lock().expect("no panic while held");
        let late = random.random_bool(0.02).then(|| random.random_range(1..400));
        let twice = random.random_bool(0.02).then(|| random.random_range(1..3000));
        (late.map(Duration::from_millis), twice.map(Duration::from_millis))
    };
    let (parts, body) = request.into_parts();
    // A message that breaks off is not one.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if let Some(later) = twice {
        let again = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let routes = unreliable.routes;
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            drop(routes.oneshot(again).await);
        });
    }
    if let Some(late) = late {
        tokio::time::sleep(late).await;
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}
