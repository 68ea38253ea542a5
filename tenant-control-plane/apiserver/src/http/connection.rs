//! Accepts TLS connections and runs HTTP/1.1 or HTTP/2 on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Response;
use super::stack::{Next, pass};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A header section larger than this is refused, bytes.
const MAX_HEADERS: u32 = 64 * 1024;
const MAX_STREAMS: u32 = 250;

/// What the transport knows of a request's sender.
#[derive(Clone)]
pub struct Peer {
    /// Remote address.
    pub address: SocketAddr,
    /// The client certificate chain, leaf first; empty without one. The peer holds the leaf's key;
    /// who signed it is **not verified** yet, so it names nobody.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Serves until the token is cancelled, then waits for requests in flight, at most `drain`.
pub async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    stack: Next,
    stop: CancellationToken,
    drain: Duration,
) {
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let connection = connection(
                    stream,
                    address,
                    tls.clone(),
                    stack.clone(),
                    builder.clone(),
                    graceful.watcher(),
                );
                tokio::spawn(connection);
            }
            Err(error) => {
                // Out of file descriptors, most likely: give connections time to end.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(drain, graceful.shutdown()).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024);
    builder
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    stack: Next,
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer = %address, %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer =
        Peer { address, certificates: chain.iter().map(|c| c.clone().into_owned()).collect() };
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (stack, peer) = (stack.clone(), peer.clone());
            async move {
                let mut request = request.map(streaming::body::boxed);
                request.extensions_mut().insert(peer);
                Ok::<Response, std::convert::Infallible>(pass(stack, request).await)
            }
        });
    let serving =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}
