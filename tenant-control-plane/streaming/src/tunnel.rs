//! `port-forward` over WebSocket: the messages carry a raw SPDY connection, which goes on to the
//! kubelet as it is. Source: KEP-4006, subprotocol `SPDY/3.1+portforward.k8s.io`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use machinery::{Reason, Status};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::body::{self, Body};
use crate::node::{Mode, NodeClient, NodeTarget, unreachable};
use crate::proxy::{self, LONGEST_REFUSAL};
use crate::translate::probes;
use crate::websocket::{self, Socket};

/// How long a node may take to switch protocols; it asks its container runtime meanwhile.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
const PREFIX: &str = "SPDY/3.1+";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// Bytes of the tunnel that are read at once.
const CHUNK: usize = 32 * 1024;

/// Why the kubelet did not switch to SPDY.
pub(crate) enum Refusal {
    /// It could not be reached.
    Unreachable(Status),
    /// It answered with another status.
    Answered { code: StatusCode, content_type: Option<HeaderValue>, body: Vec<u8> },
}

impl Refusal {
    /// What to tell a client that is already upgraded.
    pub(crate) fn to_status(&self) -> Status {
        match self {
            Refusal::Unreachable(status) => status.clone(),
            Refusal::Answered { body, .. } => {
                let said: Value = serde_json::from_slice(body).unwrap_or_default();
                let text = match said["message"].as_str() {
                    Some(message) => message.to_owned(),
                    None => String::from_utf8_lossy(body).trim().to_owned(),
                };
                Status::internal(format!("unable to upgrade connection: {text}"))
            }
        }
    }

    /// What to answer a client that is not.
    fn into_response(self) -> Response<Body> {
        match self {
            Refusal::Unreachable(status) => crate::node::status_response(&status),
            Refusal::Answered { code, content_type, body } => {
                let mut response = Response::new(body::full(body));
                *response.status_mut() = code;
                if let Some(value) = content_type {
                    response.headers_mut().insert(header::CONTENT_TYPE, value);
                }
                response
            }
        }
    }
}

/// Opens a SPDY connection to a kubelet that speaks one of the stream protocols, and names it.
pub(crate) async fn spdy_upgrade(
    client: &NodeClient,
    target: &NodeTarget,
    protocols: &[&str],
) -> Result<(TokioIo<Upgraded>, String), Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    for protocol in protocols {
        if let Ok(value) = HeaderValue::from_str(protocol) {
            headers.append(STREAM_PROTOCOL, value);
        }
    }
    let failed = |error: &dyn std::fmt::Display| Refusal::Unreachable(unreachable(target, error));
    let sent = proxy::send(client, target, Method::POST, headers, body::empty());
    let response = timeout(UPGRADE_TIMEOUT, sent)
        .await
        .map_err(|_| failed(&"no answer to the upgrade request"))?
        .map_err(|e| failed(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let collected = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
        let body = collected.map(|c| c.to_bytes().to_vec()).unwrap_or_default();
        // A redirect is not followed, and its target is of no concern to the client.
        if code.is_redirection() {
            let text = "the node answered with a redirect, which is not followed";
            return Err(Refusal::Unreachable(Status::new(Reason::ServiceUnavailable, text)));
        }
        return Err(Refusal::Answered { code, content_type, body });
    }
    let chosen = response.headers().get(STREAM_PROTOCOL).and_then(|v| v.to_str().ok());
    let chosen = chosen.unwrap_or_default().to_owned();
    if !protocols.contains(&chosen.as_str()) {
        return Err(failed(&format!("it speaks an unknown stream protocol \"{chosen}\"")));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| failed(&e))?;
    Ok((TokioIo::new(upgraded), chosen))
}

/// Serves a WebSocket port-forward. Subprotocols without the tunnel prefix go to the kubelet as
/// they are.
pub(crate) async fn serve(
    client: &Arc<NodeClient>,
    mut request: Request<Body>,
    target: NodeTarget,
) -> Result<Response<Body>, Status> {
    let offered = websocket::offered(request.headers());
    let inner: Vec<&str> = offered.iter().filter_map(|p| p.strip_prefix(PREFIX)).collect();
    if inner.is_empty() {
        return proxy::serve(client, request, &target, Mode::PortForward).await;
    }
    let (backend, chosen) = match spdy_upgrade(client, &target, &inner).await {
        Ok(opened) => opened,
        Err(refusal) => return Ok(refusal.into_response()),
    };
    let response = websocket::accept(request.headers(), &format!("{PREFIX}{chosen}"))?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        copy(websocket::socket(upgraded).await, backend).await;
    });
    Ok(response)
}

/// Copies both ways until one side ends.
async fn copy(socket: Socket, backend: TokioIo<Upgraded>) {
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(backend);
    let to_backend = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    let written = write.write_all(&bytes).await;
                    if written.is_err() || write.flush().await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let to_client = async {
        let mut probe = probes();
        let mut chunk = BytesMut::with_capacity(CHUNK);
        loop {
            let message = tokio::select! {
                read = read.read_buf(&mut chunk) => match read {
                    Ok(n) if n > 0 => Message::Binary(chunk.split().freeze()),
                    _ => break,
                },
                _ = probe.tick() => Message::Ping(Bytes::new()),
            };
            chunk.reserve(CHUNK);
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    tokio::select! {
        () = to_backend => {}
        () = to_client => {}
    }
}
