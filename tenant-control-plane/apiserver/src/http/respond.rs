//! Responses.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use machinery::Status;
use serde::Serialize;
use streaming::body;

use super::Response;

/// Under this key of a status' details an expired list carries the token to go on with.
pub const CONTINUE: &str = "continue";
/// Bodies are sent in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// A response of some media type.
pub fn bytes(code: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Bytes that are held in several pieces, sent one behind the other without being copied.
pub fn pieces(media_type: &'static str, pieces: Arc<[Bytes]>) -> Response {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let stream =
        (0..pieces.len()).map(move |i| Ok::<_, std::convert::Infallible>(pieces[i].clone()));
    let mut response = bytes(StatusCode::OK, media_type, Bytes::new());
    *response.body_mut() = body::stream(futures::stream::iter(stream));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Response {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// A JSON value, or what serialises as one: its maps have text as keys.
pub fn json(code: StatusCode, value: &impl Serialize) -> Response {
    let bytes_of = serde_json::to_vec(value).expect("maps with text as keys always serialise");
    bytes(code, "application/json", bytes_of)
}

/// An error.
pub fn error(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = status.to_json();
    // An expired list says how to go on; the token belongs into the metadata.
    if let Some(token) = status.details[CONTINUE].as_str() {
        body["metadata"][CONTINUE] = token.into();
        if let Some(map) = body.as_object_mut() {
            map.remove("details");
        }
    }
    let mut response = json(code, &body);
    if let Some(seconds) = status.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds a `Warning` header (RFC 9111 §5.5 as Kubernetes uses it: code 299, no agent).
pub fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| (matches!(c, '"' | '\\')).then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

/// A JSON text of `head`, items separated by commas, and `tail`. Items are turned into bytes while
/// the client reads, a piece at a time, so that a long list needs no second copy in memory.
pub fn json_list<T, F>(head: String, items: Vec<T>, render: F, tail: &'static str) -> Response
where
    T: Send + 'static,
    F: Fn(T, &mut BytesMut) + Send + 'static,
{
    let mut items = items.into_iter();
    let mut first = true;
    let mut piece = move |mut buffer: BytesMut| {
        for item in items.by_ref() {
            if !std::mem::take(&mut first) {
                buffer.put_u8(b',');
            }
            render(item, &mut buffer);
            if buffer.len() >= PIECE {
                return (buffer.freeze(), false);
            }
        }
        buffer.put_slice(tail.as_bytes());
        (buffer.freeze(), true)
    };
    let (start, done) = piece(BytesMut::from(head.as_bytes()));
    if done {
        return bytes(StatusCode::OK, "application/json", start);
    }
    let rest = futures::stream::unfold(Some(piece), |state| async move {
        let mut piece = state?;
        let (bytes, done) = piece(BytesMut::with_capacity(PIECE + PIECE / 4));
        Some((Ok::<_, std::convert::Infallible>(bytes), (!done).then_some(piece)))
    });
    let all = futures::StreamExt::chain(futures::stream::once(async move { Ok(start) }), rest);
    let mut response = bytes(StatusCode::OK, "application/json", Bytes::new());
    *response.body_mut() = body::stream(all);
    response
}
