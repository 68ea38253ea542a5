//! A connection to an etcd cluster.
//!
//! [`Client`] holds one gRPC channel per endpoint and hands them out in turn. A channel prefers
//! its own endpoint; when a connection breaks it connects to the first endpoint that answers,
//! starting with its own, so that a dead member costs its requests in flight and nothing more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::lease_client::LeaseClient;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::pb::etcdserverpb::watch_client::WatchClient;
use crate::tls::{ClientTls, TlsError, client_config};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Not below 5 s, which is the least that etcd servers tolerate by default.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A response may be as large as the server makes it; etcd's own client has no limit either.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint is not `http(s)://host:port`.
    #[error("endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An `https` endpoint without TLS material, or bad material.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// No endpoint was given.
    #[error("no endpoint given")]
    NoEndpoint,
}

/// Connects lazily: the first request dials. `tls` is used for `https` endpoints.
pub fn connect<S: AsRef<str>>(
    endpoints: &[S],
    tls: Option<&ClientTls>,
) -> Result<Client, ConnectError> {
    if endpoints.is_empty() {
        return Err(ConnectError::NoEndpoint);
    }
    let tls = tls.map(client_config).transpose()?.map(Arc::new);
    let targets = endpoints
        .iter()
        .map(|e| Target::parse(e.as_ref(), tls.is_some()))
        .collect::<Result<Vec<_>, _>>()?;
    let targets: Arc<[Target]> = targets.into();
    let channels = (0..targets.len())
        .map(|preferred| {
            let connector =
                Connector { targets: Arc::clone(&targets), tls: tls.clone(), preferred };
            endpoint(&targets[preferred]).connect_with_connector_lazy(connector)
        })
        .collect();
    Ok(Client { channels, next: Arc::new(AtomicUsize::new(0)) })
}

/// Connects lazily through another network than the host's, without TLS: `connector` is given
/// `http://host:port`.
pub fn connect_through<S: AsRef<str>, C>(
    endpoints: &[S],
    connector: C,
) -> Result<Client, ConnectError>
where
    C: tower::Service<Uri, Error = std::io::Error> + Clone + Send + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    C::Future: Send,
{
    if endpoints.is_empty() {
        return Err(ConnectError::NoEndpoint);
    }
    let channel = |e: &S| {
        let target = Target::parse(e.as_ref(), false)?;
        Ok(endpoint(&target).connect_with_connector_lazy(connector.clone()))
    };
    let channels = endpoints.iter().map(channel).collect::<Result<_, ConnectError>>()?;
    Ok(Client { channels, next: Arc::new(AtomicUsize::new(0)) })
}

/// Channels to all members. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Client {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
}

impl Client {
    /// The next channel in turn. A stream (watch, lease keep-alive) stays on the one it got.
    pub fn channel(&self) -> Channel {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[n % self.channels.len()].clone()
    }

    /// One channel per endpoint, in the order in which the endpoints were given.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Range, Put, DeleteRange, Txn, Compact.
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Watch streams.
    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Leases.
    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Members.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel())
    }

    /// Status, snapshot, hash.
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE)
    }
}

fn endpoint(target: &Target) -> Endpoint {
    // The scheme is `http` because the connector does TLS itself; the request's origin, which the
    // server sees, is the real one.
    Endpoint::from_shared(format!("http://{}:{}", target.host_text, target.port))
        .expect("host and port were parsed from a URI")
        .origin(target.origin.clone())
        .connect_timeout(CONNECT_TIMEOUT.saturating_mul(3))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
}

#[derive(Clone, Debug)]
struct Target {
    /// As in a URI: an IPv6 address has brackets.
    host_text: String,
    host: String,
    port: u16,
    https: bool,
    origin: Uri,
}

impl Target {
    fn parse(text: &str, have_tls: bool) -> Result<Self, ConnectError> {
        let bad = |reason: &str| ConnectError::Endpoint {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
        };
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|e| bad(&format!("{e}")))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("the scheme must be http or https")),
        };
        if https && !have_tls {
            return Err(bad("https needs a CA certificate"));
        }
        let host_text = uri.host().ok_or_else(|| bad("no host"))?.to_owned();
        let host = host_text.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(2379);
        let scheme = if https { "https" } else { "http" };
        let origin =
            format!("{scheme}://{host_text}:{port}").parse().map_err(|e| bad(&format!("{e}")))?;
        Ok(Target { host_text, host, port, https, origin })
    }
}

/// Dials the preferred member first, then the others in order.
#[derive(Clone)]
struct Connector {
    targets: Arc<[Target]>,
    tls: Option<Arc<rustls::ClientConfig>>,
    preferred: usize,
}

impl Connector {
    async fn dial_any(self) -> std::io::Result<TokioIo<Stream>> {
        let mut last = None;
        for i in 0..self.targets.len() {
            let target = &self.targets[(self.preferred + i) % self.targets.len()];
            match tokio::time::timeout(CONNECT_TIMEOUT, self.dial(target)).await {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(e)) => last = Some(e),
                Err(_) => last = Some(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last.expect("there is at least one endpoint"))
    }

    async fn dial(&self, target: &Target) -> std::io::Result<Stream> {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
        tcp.set_nodelay(true)?;
        match (&self.tls, target.https) {
            (Some(tls), true) => {
                let name = ServerName::try_from(target.host.clone())
                    .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidInput, e))?;
                let tls = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                Ok(Stream::Tls(Box::new(tls.connect(name, tcp).await?)))
            }
            _ => Ok(Stream::Plain(tcp)),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial_any())
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
