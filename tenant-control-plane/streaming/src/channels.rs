//! Channels of a remote command in WebSocket messages: a channel byte, then data.
//!
//! Source: the subprotocols `channel.k8s.io`, `v4.channel.k8s.io` and `v5.channel.k8s.io`, each with
//! a `base64.` form but the last.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use futures::stream::SplitSink;
use serde_json::Value;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::websocket::Socket;

pub(crate) const STDIN: u8 = 0;
pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const RESIZE: u8 = 4;
/// Version 5: the next byte names a channel that the client has closed.
pub(crate) const CLOSE: u8 = 255;

/// What the versions differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// The client says when it has no more input.
    pub close_signal: bool,
    /// Text messages: a digit for the channel, then base 64.
    pub base64: bool,
    /// The command's end is a Status; otherwise the text of an error, or nothing.
    pub status: bool,
}

const V1: Protocol = Protocol { close_signal: false, base64: false, status: false };
const V4: Protocol = Protocol { status: true, ..V1 };

/// The subprotocols, the preferred first. A client that offers none speaks the first version.
pub(crate) const SUBPROTOCOLS: [(&str, Protocol); 6] = [
    ("v5.channel.k8s.io", Protocol { close_signal: true, ..V4 }),
    ("v4.channel.k8s.io", V4),
    ("v4.base64.channel.k8s.io", Protocol { base64: true, ..V4 }),
    ("channel.k8s.io", V1),
    ("base64.channel.k8s.io", Protocol { base64: true, ..V1 }),
    ("", V1),
];

/// Channel byte and data of a message; empty for control messages, `None` at the end.
pub(crate) fn decode(message: Message, protocol: Protocol) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) if !protocol.base64 => Some(bytes),
        Message::Text(text) if protocol.base64 => {
            let (channel, encoded) = text.as_str().split_at_checked(1)?;
            let mut bytes = vec![channel.parse::<u8>().ok()?];
            STANDARD.decode_vec(encoded, &mut bytes).ok()?;
            Some(bytes.into())
        }
        Message::Close(_) => None,
        _ => Some(Bytes::new()),
    }
}

/// The way to the client.
pub(crate) struct Output {
    sink: SplitSink<Socket, Message>,
    protocol: Protocol,
}

impl Output {
    pub(crate) fn new(sink: SplitSink<Socket, Message>, protocol: Protocol) -> Self {
        Self { sink, protocol }
    }

    pub(crate) async fn send(&mut self, channel: u8, data: &[u8]) -> Result<(), Error> {
        let message = if self.protocol.base64 {
            Message::text(format!("{channel}{}", STANDARD.encode(data)))
        } else {
            let mut bytes = BytesMut::with_capacity(1 + data.len());
            bytes.put_u8(channel);
            bytes.extend_from_slice(data);
            Message::Binary(bytes.freeze())
        };
        self.sink.send(message).await
    }

    /// Says how the command ended; `status` is a Status.
    pub(crate) async fn end(&mut self, status: &[u8]) -> Result<(), Error> {
        if self.protocol.status {
            return self.send(ERROR, status).await;
        }
        match failure(status) {
            Some(text) => self.send(ERROR, text.as_bytes()).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn probe(&mut self) -> Result<(), Error> {
        self.sink.send(Message::Ping(Bytes::new())).await
    }

    pub(crate) async fn close(&mut self) -> Result<(), Error> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.sink.send(Message::Close(Some(frame))).await
    }
}

/// What the first version says of a Status.
fn failure(status: &[u8]) -> Option<String> {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    (status["status"] != "Success")
        .then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_has_words_for_errors_only() {
        assert_eq!(failure(br#"{"status": "Success"}"#), None);
        let failed = br#"{"status": "Failure", "message": "exit code 1"}"#;
        assert_eq!(failure(failed).as_deref(), Some("exit code 1"));
    }
}
