//! A web server for a first Deployment: it says which pod answered.
//!
//! It needs no configuration. It listens on port 8080 (or `PORT`) on all addresses, IPv6 included
//! where there is any, and answers every request with the pod's name, the node's name if the pod
//! was given one in `NODE_NAME`, and what was asked. `/healthz` answers `ok`; SIGTERM finishes the
//! requests under way and ends.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// How long requests that are under way may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// What the pod knows about itself; read once, when the server starts.
struct Identity {
    pod: String,
    node: Option<String>,
}

impl Identity {
    fn read() -> Self {
        let text = |path| std::fs::read_to_string(path).ok().map(|s: String| s.trim().to_owned());
        let pod = std::env::var("POD_NAME")
            .ok()
            .or_else(|| text("/etc/hostname").filter(|s| !s.is_empty()))
            .or_else(|| text("/proc/sys/kernel/hostname"))
            .unwrap_or_else(|| "unknown".to_owned());
        let node = std::env::var("NODE_NAME").ok().filter(|s| !s.is_empty());
        Self { pod, node }
    }

    fn answer(&self, method: &str, target: &str, peer: SocketAddr) -> String {
        let node = self.node.as_ref().map(|n| format!("node: {n}\n")).unwrap_or_default();
        format!("pod: {}\n{node}request: {method} {target}\nclient: {}\n", self.pod, peer.ip())
    }
}

fn respond(me: &Identity, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let body = match request.uri().path() {
        "/healthz" => "ok\n".to_owned(),
        _ => me.answer(request.method().as_str(), target, peer),
    };
    // Standard output is the container's log: one line per request.
    if request.uri().path() != "/healthz" {
        println!("{} {target} from {}", request.method(), peer.ip());
    }
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::OK;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, plain);
    response
}

async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    me: std::sync::Arc<Identity>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = respond(&me, &request, peer);
        async move { Ok::<_, Infallible>(response) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let served =
        watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    // A client that goes away in the middle is no event worth a line.
    let _ = served.await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|_| {
            std::io::Error::other(format!("PORT must be a number from 1 to 65535, not {text:?}"))
        })?,
        Err(_) => 8080,
    };
    let me = std::sync::Arc::new(Identity::read());
    let listener = listen(port).await?;
    println!("{} listens on {}", me.pod, listener.local_addr()?);
    let graceful = GracefulShutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    tokio::spawn(connection(stream, peer, me.clone(), graceful.watcher()));
                }
                // Out of descriptors, most likely: let some requests finish.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_pod_node_and_request() {
        let peer = SocketAddr::from(([10, 244, 1, 7], 4000));
        let me = Identity { pod: "web-1".into(), node: Some("w1".into()) };
        assert_eq!(
            me.answer("GET", "/a?b=c", peer),
            "pod: web-1\nnode: w1\nrequest: GET /a?b=c\nclient: 10.244.1.7\n"
        );
        let me = Identity { node: None, ..me };
        assert!(!me.answer("GET", "/", peer).contains("node:"));
    }
}
