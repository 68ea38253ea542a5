//! A log over WebSocket: what the kubelet sends becomes messages, and the end of it the close.
//!
//! Source: the subprotocols `binary.k8s.io` and `base64.binary.k8s.io`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use machinery::Status;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::body::{self, Body};
use crate::node::{NodeClient, NodeTarget, unreachable};
use crate::proxy;
use crate::translate::{CLOSE_TIMEOUT, probes};
use crate::websocket::{self, Socket};

/// The subprotocols, and whether their messages are base 64. A client may offer none.
const SUBPROTOCOLS: [(&str, bool); 3] =
    [("binary.k8s.io", false), ("base64.binary.k8s.io", true), ("", false)];

/// Asks the kubelet for the log and accepts the WebSocket once there is one.
pub(crate) async fn serve(
    client: &Arc<NodeClient>,
    mut request: Request<Body>,
    target: &NodeTarget,
) -> Result<Response<Body>, Status> {
    let (name, base64) = websocket::choose(request.headers(), &SUBPROTOCOLS)?;
    let accepted = websocket::accept(request.headers(), name)?;
    let method = request.method().clone();
    let mut headers = request.headers().clone();
    headers.remove(header::UPGRADE);
    let websocket_only: Vec<_> =
        headers.keys().filter(|n| n.as_str().starts_with("sec-websocket-")).cloned().collect();
    for name in websocket_only {
        headers.remove(name);
    }
    proxy::clean_request(&mut headers);
    let sent = proxy::send(client, target, method, headers, body::empty()).await;
    let response = sent.map_err(|e| unreachable(target, &e))?;
    if !response.status().is_success() {
        return Err(proxy::log_refusal(response).await);
    }
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = on_upgrade.await else { return };
        // An error is the client's end.
        let _ = copy(response.into_body(), websocket::socket(upgraded).await, base64).await;
    });
    Ok(accepted)
}

async fn copy(log: Incoming, socket: Socket, base64: bool) -> Result<(), Error> {
    let (mut sink, mut source) = socket.split();
    let mut pieces = log.into_data_stream();
    let mut probe = probes();
    loop {
        let message = tokio::select! {
            piece = pieces.next() => match piece {
                Some(Ok(bytes)) if base64 => Message::text(STANDARD.encode(&bytes)),
                Some(Ok(bytes)) => Message::Binary(bytes),
                _ => break,
            },
            _ = probe.tick() => Message::Ping(Bytes::new()),
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => continue,
            },
        };
        sink.send(message).await?;
    }
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    sink.send(Message::Close(Some(frame))).await?;
    let drained = async { while let Some(Ok(_)) = source.next().await {} };
    // A client that does not answer the close is left alone.
    let _ = timeout(CLOSE_TIMEOUT, drained).await;
    Ok(())
}
