//! The plain health port (10248, loopback only).

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Body, text};

async fn serve(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    })
}

/// Serves until `stop`.
pub async fn run(listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! { () = stop.cancelled() => return, accepted = listener.accept() => accepted };
        let Ok((stream, _)) = accepted else { continue };
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(serve))
                .await;
            if let Err(error) = served {
                tracing::debug!("serving a health check: {error}");
            }
        });
    }
}
