//! The kubelet's HTTPS server (port 10250): what the API server asks on behalf of `kubectl logs`,
//! `exec`, `attach`, `port-forward` and `top`, and what monitoring asks.
//!
//! Every request is authenticated (client certificate, or bearer token by TokenReview) and
//! authorized; there are no anonymous ones. Streams are handed to the runtime byte for byte.

pub mod auth;
pub mod health;
pub mod log_file;
pub mod logs;
pub mod router;
pub mod stats;
pub mod streams;
pub mod tls;

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

/// Body of an answer.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

/// An answer of JSON.
pub fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(StatusCode::OK, "application/json", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Serves until `stop`.
///
/// # Errors
/// When the port or the certificate cannot be used.
pub async fn run(
    node: Arc<Node>,
    listener: TcpListener,
    pair: crate::certs::serving::Pair,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let config = tls::config(pair, node.config.client_ca_file.as_deref())
        .context("preparing the server's TLS")?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("accepting a connection: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (node, acceptor) = (node.clone(), acceptor.clone());
        tokio::spawn(async move {
            // A peer that gives up its handshake is not worth a word.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let peer: Arc<Option<auth::Caller>> =
                Arc::new(auth::from_certificate(stream.get_ref().1));
            let service = service_fn(move |request| {
                let (node, peer) = (node.clone(), peer.clone());
                async move {
                    Ok::<_, Infallible>(router::serve(&node, peer.as_ref().as_ref(), request).await)
                }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!("serving a connection: {error}");
            }
        });
    }
}
