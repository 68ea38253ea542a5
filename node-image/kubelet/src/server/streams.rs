//! `exec`, `attach` and `port-forward`: the runtime prepares a stream and answers with its
//! address; the caller's upgraded connection is then joined to it byte for byte, whatever
//! protocol (SPDY or WebSocket) the two speak.

use std::sync::Arc;

use bytes::Bytes;
use cri::pb;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::router::{Query, find_pod};
use super::{Body, text};
use crate::node::Node;
use crate::runtime::observe::{self, State};
use crate::spec::containers;

/// What is asked for; the container by name.
#[derive(Clone, Copy, Debug)]
pub enum Stream<'a> {
    /// A new process.
    Exec(&'a str),
    /// The first process.
    Attach(&'a str),
    /// Ports of the sandbox.
    PortForward,
}

type Refusal = Response<Body>;

fn refuse(status: StatusCode, why: impl std::fmt::Display) -> Refusal {
    text(status, why.to_string())
}

async fn running(node: &Node, pod: &Pod, container: &str) -> Result<String, Refusal> {
    let runtime = observe::observe(&node.runtime, containers::uid(pod)).await;
    let runtime = runtime.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))?;
    let found = runtime.latest(container).filter(|c| c.state == State::Running);
    found.map(|c| c.id.clone()).ok_or_else(|| {
        refuse(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))
    })
}

/// Which of the three streams and whether a terminal is wanted.
#[allow(clippy::result_large_err)] // The error is the answer that is sent.
fn options(query: &Query) -> Result<(bool, bool, bool, bool), Refusal> {
    let tty = query.flag(&["tty"]);
    let (stdin, stdout) = (query.flag(&["input", "stdin"]), query.flag(&["output", "stdout"]));
    // A terminal has one output.
    let stderr = query.flag(&["error", "stderr"]) && !tty;
    if !stdin && !stdout && !stderr {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    Ok((tty, stdin, stdout, stderr))
}

async fn prepare(
    node: &Node,
    pod: &Pod,
    stream: Stream<'_>,
    query: &Query,
) -> Result<String, Refusal> {
    let failed = |e: cri::Error| refuse(StatusCode::INTERNAL_SERVER_ERROR, e);
    match stream {
        Stream::Exec(container) => {
            let (tty, stdin, stdout, stderr) = options(query)?;
            let container_id = running(node, pod, container).await?;
            let cmd = query.all("command");
            let request = pb::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
            Ok(node.runtime.exec(request).await.map_err(failed)?.url)
        }
        Stream::Attach(container) => {
            let (_, stdin, stdout, stderr) = options(query)?;
            let container_id = running(node, pod, container).await?;
            // Whether the process has a terminal was decided when it was made.
            let tty = containers::find(pod, container).is_some_and(|(_, c)| c.tty == Some(true));
            let request =
                pb::AttachRequest { container_id, stdin, tty, stdout, stderr: stderr && !tty };
            Ok(node.runtime.attach(request).await.map_err(failed)?.url)
        }
        Stream::PortForward => {
            let runtime =
                observe::observe(&node.runtime, containers::uid(pod)).await.map_err(failed)?;
            let sandbox = runtime.sandbox().filter(|s| s.ready);
            let sandbox = sandbox
                .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "the pod's sandbox is not running"))?;
            let port = query.all("port").iter().filter_map(|p| p.parse().ok()).collect();
            let request = pb::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
            Ok(node.runtime.port_forward(request).await.map_err(failed)?.url)
        }
    }
}

/// Serves one streaming request.
pub async fn serve(
    node: &Arc<Node>,
    (namespace, name, uid): (&str, &str, Option<&str>),
    stream: Stream<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let pod = match find_pod(node, namespace, name, uid) {
        Ok(pod) => pod,
        Err(refusal) => return refusal,
    };
    if !request.headers().contains_key(header::UPGRADE) {
        return refuse(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    match prepare(node, &pod, stream, query).await {
        Ok(url) => join(&url, request).await.unwrap_or_else(|why| {
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("joining the runtime's stream: {why}"),
            )
        }),
        Err(refusal) => refusal,
    }
}

/// The request as the runtime's streaming server gets it.
fn onward(
    method: Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::builder().method(method).uri(path).body(Empty::new())?;
    for (name, value) in headers {
        if !matches!(
            *name,
            header::HOST
                | header::AUTHORIZATION
                | header::CONTENT_LENGTH
                | header::TRANSFER_ENCODING
        ) {
            request.headers_mut().append(name, value.clone());
        }
    }
    if let Some(authority) = uri.authority()
        && let Ok(host) = header::HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

/// Sends the request to the stream's address and joins the two connections when it upgrades.
async fn join(url: &str, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let uri: Uri = url.parse()?;
    let host = uri.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
    let backend = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(80))).await?;
    backend.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(backend)).await?;
    tokio::spawn(connection.with_upgrades());
    let onward = onward(request.method().clone(), &uri, request.headers())?;
    let mut response = sender.send_request(onward).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = response.into_parts();
        return Ok(Response::from_parts(parts, body.map_err(Into::into).boxed()));
    }
    let theirs = hyper::upgrade::on(&mut response);
    let ours = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (Ok(theirs), Ok(ours)) = (theirs.await, ours.await) else { return };
        let (mut theirs, mut ours) = (TokioIo::new(theirs), TokioIo::new(ours));
        // Either side may hang up at any time: that is how streams end.
        let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, Empty::new().map_err(|never| match never {}).boxed()))
}

/// `/run`: a command to its end, with its output as the answer.
pub async fn run(
    node: &Arc<Node>,
    (namespace, name, container): (&str, &str, &str),
    query: &Query,
) -> Response<Body> {
    let run = async {
        let pod = find_pod(node, namespace, name, None)?;
        let id = running(node, &pod, container).await?;
        let cmd =
            query.get("cmd").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let answer = node.runtime.exec_sync(&id, cmd, std::time::Duration::from_secs(60)).await;
        answer.map_err(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e))
    };
    match run.await {
        Ok(answer) => text(StatusCode::OK, [answer.stdout, answer.stderr].concat()),
        Err(refusal) => refusal,
    }
}
