//! Request bodies: bounded, and decoded into a JSON tree.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use machinery::{Reason, Status};
use serde_json::Value;

use super::{Request, media};

/// Largest body that is read, bytes.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Longest time that a body may take.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
/// So much more of a body that is too large is taken and thrown away, bytes: a client that still
/// sends must not be cut off before it has read the answer.
const MAX_DRAIN: usize = 64 * 1024 * 1024;
/// How deep a YAML body may be nested, as with JSON.
const MAX_YAML_DEPTH: usize = 128;
/// What a YAML body may expand to, bytes.
const MAX_YAML_EXPANSION: usize = 8 * 1024 * 1024;

/// In which notation a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// Reads the whole body; 413 when it is too large, 504 when it takes too long.
pub async fn read(request: &mut Request) -> Result<Bytes, Status> {
    let reading = read_whole(request);
    tokio::time::timeout(READ_TIMEOUT, reading).await.unwrap_or_else(|_| {
        Err(Status::new(Reason::Timeout, "the request body did not arrive in time"))
    })
}

async fn read_whole(request: &mut Request) -> Result<Bytes, Status> {
    let mut body = std::mem::replace(request.body_mut(), streaming::body::empty());
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| Status::bad_request(format!("reading the request body failed: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            tokio::spawn(tokio::time::timeout(READ_TIMEOUT, drain(body)));
            return Err(Status::new(
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: limit is {MAX_BODY}"),
            ));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Keeps the stream open while the answer is on its way.
async fn drain(mut body: streaming::body::Body) {
    let mut left = MAX_DRAIN;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// The notation of the body; 415 for unknown ones.
pub fn notation(request: &Request) -> Result<Notation, Status> {
    match media::content_type(request.headers()).as_str() {
        "" | "application/json" => Ok(Notation::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Notation::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Notation::Protobuf),
        other => Err(Status::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
            ),
        )),
    }
}

/// Decodes a JSON or YAML body.
pub fn decode(bytes: &[u8], notation: Notation) -> Result<Value, Status> {
    parse(bytes, notation)
        .map_err(|why| Status::bad_request(format!("the object provided is unrecognized: {why}")))
}

/// Decodes a JSON or YAML body that is to be an object of a kind.
pub fn decode_object(bytes: &[u8], notation: Notation, kind: &str) -> Result<Value, Status> {
    parse(bytes, notation).map_err(|why| {
        let reader = match notation {
            Notation::Json => "couldn't get version/kind; json parse error: ",
            _ => "",
        };
        let summary = summary(bytes);
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {reader}{why} ({summary})"
        ))
    })
}

fn parse(bytes: &[u8], notation: Notation) -> Result<Value, String> {
    match notation {
        Notation::Json => serde_json::from_slice::<Value>(bytes).map_err(|e| e.to_string()),
        Notation::Yaml => decode_yaml(bytes),
        Notation::Protobuf => Err("protobuf is not accepted here".to_owned()),
    }
}

/// The beginning of a body: as text if it looks like JSON, else in hexadecimal digits.
fn summary(bytes: &[u8]) -> String {
    const LENGTH: usize = 30;
    let head = &bytes[..bytes.len().min(LENGTH)];
    let more = if bytes.len() > LENGTH { " ..." } else { "" };
    let text = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
    };
    text + more
}

fn decode_yaml(bytes: &[u8]) -> Result<Value, String> {
    // What looks like JSON nearly always is, and is read faster so.
    if bytes.first() == Some(&b'{')
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    check_depth(text)?;
    let value: Value = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
    // Anchors let a small text grow; the parser bounds repetition, this bounds the result.
    if size(&value, MAX_YAML_EXPANSION).is_none() {
        return Err("the YAML document expands to too much".to_owned());
    }
    Ok(value)
}

/// Refuses deep nesting before a tree is made of it: what the parser does for one token grows with
/// the depth at which it stands.
fn check_depth(text: &str) -> Result<(), String> {
    use saphyr_parser::{Event, Parser};

    let mut depth = 0;
    for event in Parser::new_from_str(text) {
        match event.map_err(|e| e.to_string())?.0 {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth -= 1,
            _ => {}
        }
        if depth > MAX_YAML_DEPTH {
            return Err(format!("exceeded max depth of {MAX_YAML_DEPTH}"));
        }
    }
    Ok(())
}

/// Rough size of a tree in bytes, or `None` when beyond the limit.
fn size(value: &Value, limit: usize) -> Option<usize> {
    let mut left = limit;
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        let cost = match value {
            Value::String(s) => s.len() + 8,
            Value::Array(items) => {
                stack.extend(items);
                8
            }
            Value::Object(map) => {
                stack.extend(map.values());
                8 + map.keys().map(|k| k.len() + 8).sum::<usize>()
            }
            _ => 8,
        };
        left = left.checked_sub(cost)?;
    }
    Some(limit - left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_json_is_told_what_it_should_be() {
        let said =
            |body: &[u8]| decode_object(body, Notation::Json, "Namespace").unwrap_err().message;
        let yaml = said(b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n");
        assert!(
            yaml.starts_with(
                "the object provided is unrecognized (must be of type Namespace): couldn't get \
                 version/kind; json parse error: "
            ),
            "{yaml}"
        );
        assert!(
            yaml.ends_with("(61706956657273696f6e3a2076310a6b696e643a20506f640a6d65746164 ...)")
        );
        assert!(said(b"{\"a\":").ends_with("({\"a\":)") && said(b"").ends_with("(<empty>)"));
    }

    #[test]
    fn deep_yaml_is_refused_at_once() {
        let nested = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(decode(nested(100).as_bytes(), Notation::Yaml).is_ok());
        for deep in [
            nested(200),
            "a: ".to_owned() + &"[".repeat(1_000_000),
            "{".repeat(1_000_000),
            "- ".repeat(200) + "x",
        ] {
            let why = decode(deep.as_bytes(), Notation::Yaml).unwrap_err().message;
            assert!(why.contains("exceeded"), "{why}");
        }
        let json = decode(br#"{"a": [1, "x"]}"#, Notation::Yaml).unwrap();
        assert_eq!(json, serde_json::json!({"a": [1, "x"]}));
        let flow = decode(b"{a: [1, x]}", Notation::Yaml).unwrap();
        assert_eq!(flow, serde_json::json!({"a": [1, "x"]}));
    }

    #[tokio::test]
    async fn a_client_that_sends_too_much_over_http2_reads_why_it_is_refused() {
        use http_body_util::Full;
        use hyper_util::rt::{TokioExecutor, TokioIo};

        let (near, far) = tokio::io::duplex(16 * 1024);
        let answer = |request: http::Request<hyper::body::Incoming>| async move {
            let mut request = request.map(streaming::body::boxed);
            let status = read(&mut request).await.unwrap_err();
            Ok::<_, std::convert::Infallible>(crate::http::respond::error(&status))
        };
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let service = hyper::service::service_fn(answer);
        tokio::spawn(server.serve_connection(TokioIo::new(far), service));
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
                .await
                .unwrap();
        tokio::spawn(connection);
        let body = Full::new(Bytes::from(vec![b' '; 4 * MAX_BODY]));
        let request = http::Request::post("http://localhost/").body(body).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 413);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(status["reason"], "RequestEntityTooLarge");
    }
}
