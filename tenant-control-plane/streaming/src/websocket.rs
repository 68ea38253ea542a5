//! The server side of a WebSocket handshake (RFC 6455 section 4.2), with the subprotocols that
//! Kubernetes clients offer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use machinery::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::body::{self, Body};

/// Largest message from a client, in bytes. kubectl sends at most 32 KiB.
const LARGEST_MESSAGE: usize = 1 << 20;

/// Start of the subprotocol that carries a client's bearer token.
pub(crate) const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// A WebSocket to a client.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// True when the headers ask for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let lists = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    };
    lists(header::CONNECTION, "upgrade") && lists(header::UPGRADE, "websocket")
}

/// The subprotocols that the client offers, in its order.
pub fn offered(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_owned())
        .filter(|p| !p.is_empty())
        .collect()
}

/// The first of the `known` subprotocols that the client of these headers offers; `""` is for a
/// client that offers none.
///
/// # Errors
/// 400 when there is none.
pub(crate) fn choose<T: Copy>(
    headers: &HeaderMap,
    known: &[(&'static str, T)],
) -> Result<(&'static str, T), Status> {
    let offered = offered(headers);
    let is_offered = |name: &str| match name {
        "" => offered.is_empty(),
        _ => offered.iter().any(|o| o == name),
    };
    known.iter().copied().find(|(name, _)| is_offered(name)).ok_or_else(|| {
        let known: Vec<_> = known.iter().map(|(name, _)| name).collect();
        Status::bad_request(format!(
            "unable to upgrade: unsupported WebSocket subprotocols {offered:?}; supported are {known:?}"
        ))
    })
}

/// The `101` that accepts the handshake with the chosen subprotocol (none when empty).
///
/// # Errors
/// 400 when the handshake is malformed.
pub(crate) fn accept(headers: &HeaderMap, subprotocol: &str) -> Result<Response<Body>, Status> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if version != Some(b"13") {
        return Err(Status::bad_request("WebSocket version 13 is required"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(Status::bad_request("Sec-WebSocket-Key must be 16 bytes in base 64"));
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| Status::bad_request("malformed WebSocket handshake"))
    };
    out.insert(header::SEC_WEBSOCKET_ACCEPT, value(&derive_accept_key(key))?);
    if !subprotocol.is_empty() {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, value(subprotocol)?);
    }
    Ok(response)
}

/// The WebSocket on an upgraded connection.
pub(crate) async fn socket(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_subprotocol_of_those_offered_is_chosen() {
        let known = [("v5", 5), ("v4", 4), ("", 1)];
        let chosen = |offered: &'static str| {
            let mut headers = HeaderMap::new();
            if !offered.is_empty() {
                let value = HeaderValue::from_static(offered);
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            }
            choose(&headers, &known).ok()
        };
        assert_eq!(chosen("v4, v5"), Some(("v5", 5)));
        assert_eq!(chosen("v4"), Some(("v4", 4)));
        assert_eq!(chosen(""), Some(("", 1)));
        assert_eq!(chosen("other"), None);
    }
}
