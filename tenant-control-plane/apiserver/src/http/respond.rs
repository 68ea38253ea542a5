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

/// Characters of all warnings of a response, as upstream has it.
pub const WARNINGS: usize = 4 * 1024;
/// Characters of each of them when all are too long.
const WARNING: usize = 256;

/// A response of some media type.
pub fn bytes(code: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// What is asked for is elsewhere.
pub fn moved(location: &str) -> Response {
    let mut response = bytes(StatusCode::MOVED_PERMANENTLY, "text/plain", Bytes::new());
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
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

/// Adds `Warning` headers (RFC 9111 §5.5 as Kubernetes uses it: code 299, no agent). When they are
/// too long together each is cut, and then the last ones are left out.
pub fn warn(response: &mut Response, warnings: &[String]) {
    let length = |warning: &String| warning.chars().count();
    let most = match warnings.iter().map(length).sum() {
        ..=WARNINGS => WARNINGS,
        _ => WARNING,
    };
    let mut written = 0;
    for warning in warnings {
        if written >= WARNINGS {
            return;
        }
        written += length(warning).min(most);
        let quoted: String = warning
            .chars()
            .take(most)
            .filter(|c| !c.is_control())
            .flat_map(|c| (matches!(c, '"' | '\\')).then_some('\\').into_iter().chain([c]))
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(warnings: &[String]) -> Vec<String> {
        let mut response = text(StatusCode::OK, "");
        warn(&mut response, warnings);
        let headers = response.headers().get_all(header::WARNING).iter();
        headers.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()).collect()
    }

    #[test]
    fn warnings_are_quoted_and_in_any_language() {
        let warnings = ["a \"b\"\n".to_owned(), "für später".to_owned()];
        assert_eq!(sent(&warnings), ["299 - \"a \\\"b\\\"\"", "299 - \"für später\""]);
    }

    #[test]
    fn warnings_that_are_too_long_are_cut() {
        let long = vec!["x".repeat(1000); 20];
        let sent_long = sent(&long);
        assert_eq!(sent_long.len(), 16);
        assert!(sent_long.iter().all(|warning| warning.len() == 256 + "299 - \"\"".len()));
        assert_eq!(sent(&long[..4])[3].len(), 1000 + "299 - \"\"".len());
    }
}
