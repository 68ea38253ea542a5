//! Sockets: gRPC, and a little HTTP beside it, on the same port.

use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use etcd_api::pb::etcdserverpb::AlarmType;
use etcd_api::pb::etcdserverpb::auth_server::AuthServer;
use etcd_api::pb::etcdserverpb::cluster_server::ClusterServer;
use etcd_api::pb::etcdserverpb::kv_server::KvServer;
use etcd_api::pb::etcdserverpb::lease_server::LeaseServer;
use etcd_api::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use etcd_api::pb::etcdserverpb::watch_server::WatchServer;
use etcd_api::pb::v3electionpb::election_server::ElectionServer;
use etcd_api::pb::v3lockpb::lock_server::LockServer;
use etcd_api::tls::server_config;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::authority::FixAuthority;
use crate::config::{Address, Listen, ServerTls};
use crate::gateway;
use crate::grpc::auth::AuthService;
use crate::grpc::caller::CommonName;
use crate::grpc::cluster::ClusterService;
use crate::grpc::election::ElectionService;
use crate::grpc::kv::KvService;
use crate::grpc::lease::LeaseService;
use crate::grpc::lock::LockService;
use crate::grpc::maintenance::MaintenanceService;
use crate::grpc::watch::WatchService;
use crate::metrics;
use crate::node::Node;
use crate::pb::peer_server::PeerServer;
use crate::raft::peer::PeerService;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_MESSAGE: usize = i32::MAX as usize;
/// What a request may be larger than `--max-request-bytes` by before it is refused unread.
const OVERHEAD: usize = 512 << 10;

/// What a socket serves.
#[derive(Clone)]
pub enum Serve {
    /// The etcd API, /health and /version.
    Clients(Routes),
    /// The other members.
    Peers(Routes),
    /// /metrics and the health paths.
    Metrics,
}

/// All services for clients.
pub fn client_routes(node: &Arc<Node>) -> Routes {
    let n = || Arc::clone(node);
    let limit = node.config.max_request_bytes + OVERHEAD;
    let routes = Routes::new(
        KvServer::new(KvService { node: n() })
            .max_decoding_message_size(limit)
            .max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(
        WatchServer::new(WatchService { node: n() }).max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(LeaseServer::new(LeaseService { node: n() }))
    .add_service(ClusterServer::new(ClusterService { node: n(), for_members: false }))
    .add_service(MaintenanceServer::new(MaintenanceService { node: n() }))
    .add_service(AuthServer::new(AuthService { node: n() }))
    .add_service(LockServer::new(LockService { node: n() }))
    .add_service(ElectionServer::new(ElectionService { node: n() }));
    routes.prepare()
}

/// The services for other members.
pub fn peer_routes(node: &Arc<Node>) -> Routes {
    Routes::new(
        PeerServer::new(PeerService::new(Arc::clone(node)))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
    .add_service(ClusterServer::new(ClusterService { node: Arc::clone(node), for_members: true }))
    .prepare()
}

/// A bound socket.
pub struct Socket {
    listener: Listener,
    tls: Option<TlsAcceptor>,
    url: String,
}

impl Socket {
    /// Binds it.
    pub async fn bind(listen: &Listen, tls: Option<&ServerTls>) -> anyhow::Result<Self> {
        let listener = Listener::bind(&listen.address)
            .await
            .with_context(|| format!("listening on {}", listen.url))?;
        let tls = match tls {
            Some(tls) if listen.tls => {
                let config = server_config(&tls.identity, tls.client_ca_pem.as_deref())?;
                Some(TlsAcceptor::from(Arc::new(config)))
            }
            _ => None,
        };
        Ok(Self { listener, tls, url: listen.url.clone() })
    }

    /// Accepts until `stop`, then lets requests under way finish.
    pub async fn serve(self, node: Arc<Node>, what: Serve, stop: CancellationToken) {
        tracing::info!(url = self.url, "listening");
        let graceful = GracefulShutdown::new();
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(stream) => stream,
                    Err(e) => {
                        // Out of descriptors, most likely: connections under way will free some.
                        tracing::warn!(error = %e, url = self.url, "accepting failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (tls, node, what) = (self.tls.clone(), Arc::clone(&node), what.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                if let Err(e) = connection(stream, tls, node, what, watcher).await {
                    tracing::debug!(error = %e, "connection ended");
                }
            });
        }
        drop(self.listener);
        // Watches do not end by themselves.
        let _ = tokio::time::timeout(Duration::from_millis(500), graceful.shutdown()).await;
    }
}

/// Why a connection ended.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection.
type Stream = Either<TcpStream, UnixStream>;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn bind(address: &Address) -> std::io::Result<Self> {
        let path = match address {
            Address::Tcp(address) => return Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => path,
        };
        // One that an earlier process left would be in the way.
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            _ => {}
        }
        Ok(Self::Unix(UnixListener::bind(path)?))
    }

    async fn accept(&self) -> std::io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
            Self::Unix(listener) => Either::Right(listener.accept().await?.0),
        })
    }
}

async fn connection(
    stream: Stream,
    tls: Option<TlsAcceptor>,
    node: Arc<Node>,
    what: Serve,
    watcher: Watcher,
) -> Result<(), BoxError> {
    match tls {
        Some(acceptor) => {
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
            let name = common_name(stream.get_ref().1.peer_certificates());
            serve_stream(stream, name, node, what, watcher).await
        }
        None => serve_stream(stream, None, node, what, watcher).await,
    }
}

/// Serves one connection to its end. `name` is whom the client's certificate names.
pub async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    name: Option<CommonName>,
    node: Arc<Node>,
    what: Serve,
    watcher: Watcher,
) -> Result<(), BoxError> {
    let streams = node.config.max_concurrent_streams;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(Some(Duration::from_secs(60)))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = hyper::service::service_fn(move |mut r: Request<Incoming>| {
        if let Some(name) = &name {
            r.extensions_mut().insert(name.clone());
        }
        answer(r, what.clone(), Arc::clone(&node))
    });
    let conn = builder.serve_connection(TokioIo::new(FixAuthority::new(stream)), service);
    watcher.watch(conn.into_owned()).await
}

/// The common name of the certificate that a client has shown.
fn common_name(shown: Option<&[CertificateDer<'_>]>) -> Option<CommonName> {
    let (_, certificate) = x509_parser::parse_x509_certificate(shown?.first()?).ok()?;
    let name = certificate.subject().iter_common_name().last()?.as_str().ok()?;
    Some(CommonName(name.into()))
}

async fn answer(
    r: Request<Incoming>,
    what: Serve,
    node: Arc<Node>,
) -> Result<Response<Body>, BoxError> {
    match (&what, r.uri().path()) {
        (Serve::Clients(_) | Serve::Metrics, "/health" | "/livez" | "/readyz" | "/version")
        | (_, "/metrics") => Ok(plain_http(&r, &node).await),
        (Serve::Clients(routes), path) if node.config.gateway && path.starts_with("/v3/") => {
            let is_named = r.extensions().get().is_some_and(|CommonName(name)| !name.is_empty());
            let relies_on_name =
                is_named && node.config.client_cert_auth && node.machine.is_guarded();
            // In base 64 all is a third longer.
            let limit = node.config.max_request_bytes / 3 * 4 + OVERHEAD;
            Ok(gateway::serve(routes.clone(), r.map(Body::new), limit, relies_on_name).await)
        }
        (Serve::Clients(routes) | Serve::Peers(routes), _) => {
            Ok(routes.clone().oneshot(r.map(Body::new)).await?)
        }
        (Serve::Metrics, _) => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

/// An answer of plain HTTP.
pub fn body(
    status: StatusCode,
    kind: &'static str,
    content: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let full = Full::new(content.into()).map_err(|never| match never {});
    let mut response = Response::new(Body::new(full));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, content: impl Into<bytes::Bytes>) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", content)
}

async fn plain_http(r: &Request<Incoming>, node: &Node) -> Response<Body> {
    if r.method() != Method::GET && r.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    match r.uri().path() {
        "/metrics" => {
            body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::render(node))
        }
        "/version" => body(
            StatusCode::OK,
            "application/json",
            format!(
                r#"{{"etcdserver":"{v}","etcdcluster":"{v}","storage":"{s}"}}"#,
                v = crate::VERSION,
                s = crate::STORAGE_VERSION
            ),
        ),
        "/livez" => match node.consensus.status().failure {
            None => text(StatusCode::OK, "ok\n"),
            Some(e) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")),
        },
        path => {
            let reason = unhealthy(node).await;
            let status =
                if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            if path == "/readyz" {
                return text(status, format!("{}\n", reason.as_deref().unwrap_or("ok")));
            }
            let json = serde_json::json!({
                "health": if reason.is_none() { "true" } else { "false" },
                "reason": reason.unwrap_or_default(),
            });
            body(status, "application/json", json.to_string())
        }
    }
}

/// Why this member cannot serve, if it cannot: an alarm, no leader, or no quorum.
async fn unhealthy(node: &Node) -> Option<String> {
    let status = node.consensus.status();
    if let Some(failure) = status.failure {
        return Some(failure);
    }
    let (own, _) = node.consensus.ids();
    let concerns_us =
        |(member, kind): &&(u64, i32)| *kind != i32::from(AlarmType::Corrupt) || *member == own;
    if let Some((_, kind)) = node.machine.read().alarms.iter().find(concerns_us) {
        let kind = AlarmType::try_from(*kind).unwrap_or_default();
        return Some(format!("ALARM {}", kind.as_str_name()));
    }
    if status.leader.is_none() {
        return Some("RAFT NO LEADER".into());
    }
    let read = tokio::time::timeout(Duration::from_secs(1), node.linearize()).await;
    match read {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(format!("RANGE ERROR: {}", e.message())),
        Err(_) => Some("RANGE ERROR: timed out".into()),
    }
}
