//! The API as JSON over HTTP (`POST /v3/kv/range` and so on), for clients without gRPC: upstream's
//! gRPC gateway, with the same paths and the same JSON (protobuf's canonical form, fields named as in
//! the protocol).
//!
//! A request becomes the gRPC request that it stands for and goes to the same services; what is known
//! of the messages comes from the protocol's descriptors.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions,
};
use serde_json::json;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::server::body;

/// Why a request is refused whose sender shows a certificate with a name, when users are on.
const NAME_IGNORED: &str = "CommonName of client sending a request against gateway will be \
                                ignored and not used as expected\n";
const JSON: &str = "application/json";
/// Bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

static PROTOCOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(etcd_api::DESCRIPTORS).expect("our own build has written them")
});

/// What stands for what: below `/v3/`, and as service and method.
const PATHS: [(&str, &str, &str); 51] = [
    ("kv/range", KV, "Range"),
    ("kv/put", KV, "Put"),
    ("kv/deleterange", KV, "DeleteRange"),
    ("kv/txn", KV, "Txn"),
    ("kv/compaction", KV, "Compact"),
    ("watch", "etcdserverpb.Watch", "Watch"),
    ("lease/grant", LEASE, "LeaseGrant"),
    ("lease/revoke", LEASE, "LeaseRevoke"),
    ("kv/lease/revoke", LEASE, "LeaseRevoke"),
    ("lease/keepalive", LEASE, "LeaseKeepAlive"),
    ("lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("kv/lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("lease/leases", LEASE, "LeaseLeases"),
    ("kv/lease/leases", LEASE, "LeaseLeases"),
    ("cluster/member/add", CLUSTER, "MemberAdd"),
    ("cluster/member/remove", CLUSTER, "MemberRemove"),
    ("cluster/member/update", CLUSTER, "MemberUpdate"),
    ("cluster/member/list", CLUSTER, "MemberList"),
    ("cluster/member/promote", CLUSTER, "MemberPromote"),
    ("maintenance/alarm", MAINTENANCE, "Alarm"),
    ("maintenance/status", MAINTENANCE, "Status"),
    ("maintenance/defragment", MAINTENANCE, "Defragment"),
    ("maintenance/hash", MAINTENANCE, "Hash"),
    ("maintenance/hashkv", MAINTENANCE, "HashKV"),
    ("maintenance/snapshot", MAINTENANCE, "Snapshot"),
    ("maintenance/transfer-leadership", MAINTENANCE, "MoveLeader"),
    ("maintenance/downgrade", MAINTENANCE, "Downgrade"),
    ("auth/enable", AUTH, "AuthEnable"),
    ("auth/disable", AUTH, "AuthDisable"),
    ("auth/status", AUTH, "AuthStatus"),
    ("auth/authenticate", AUTH, "Authenticate"),
    ("auth/user/add", AUTH, "UserAdd"),
    ("auth/user/get", AUTH, "UserGet"),
    ("auth/user/list", AUTH, "UserList"),
    ("auth/user/delete", AUTH, "UserDelete"),
    ("auth/user/changepw", AUTH, "UserChangePassword"),
    ("auth/user/grant", AUTH, "UserGrantRole"),
    ("auth/user/revoke", AUTH, "UserRevokeRole"),
    ("auth/role/add", AUTH, "RoleAdd"),
    ("auth/role/get", AUTH, "RoleGet"),
    ("auth/role/list", AUTH, "RoleList"),
    ("auth/role/delete", AUTH, "RoleDelete"),
    ("auth/role/grant", AUTH, "RoleGrantPermission"),
    ("auth/role/revoke", AUTH, "RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("election/campaign", ELECTION, "Campaign"),
    ("election/proclaim", ELECTION, "Proclaim"),
    ("election/leader", ELECTION, "Leader"),
    ("election/observe", ELECTION, "Observe"),
    ("election/resign", ELECTION, "Resign"),
];
const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const ELECTION: &str = "v3electionpb.Election";

fn method(path: &str) -> Option<MethodDescriptor> {
    let path = path.strip_prefix("/v3/")?;
    let (_, service, name) = PATHS.iter().find(|(known, ..)| *known == path)?;
    PROTOCOL.get_service_by_name(service)?.methods().find(|method| method.name() == *name)
}

/// Answers one request, of which at most `limit` bytes are kept. `is_named` says that the client relies
/// on the name in its certificate.
pub async fn serve(
    routes: Routes,
    r: Request<Body>,
    limit: usize,
    is_named: bool,
) -> Response<Body> {
    let (parts, content) = r.into_parts();
    let refused = match method(parts.uri.path()) {
        // As upstream's: the name would not count.
        _ if is_named => body(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", NAME_IGNORED),
        None => refusal(&Status::not_found("Not Found")),
        Some(_) if parts.method != Method::POST => {
            refusal(&Status::unimplemented("Method Not Allowed"))
        }
        Some(method) => {
            let answered = answer(routes, method, &parts.headers, content, limit).await;
            return answered.unwrap_or_else(|status| refusal(&status));
        }
    };
    // A client that is still sending may not look at the answer.
    let rest = Limited::new(content, limit).collect();
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    refused
}

fn refusal(status: &Status) -> Response<Body> {
    body(http_status(status.code()), JSON, error(status).to_string())
}

async fn answer(
    routes: Routes,
    method: MethodDescriptor,
    headers: &HeaderMap,
    content: Body,
    limit: usize,
) -> Result<Response<Body>, Status> {
    let mut messages = Messages { content, buffer: BytesMut::new(), limit, kind: method.input() };
    // The first one, before anything is begun. No body is an empty message.
    let first = match messages.next().await? {
        Some(first) => first,
        None => frame(&DynamicMessage::new(method.input()))?,
    };
    let rest = match method.is_client_streaming() {
        true => Some(messages),
        false => None,
    };
    let rest = stream::try_unfold(rest, |messages| async move {
        let Some(mut messages) = messages else { return Ok(None) };
        let next = messages.next().await?;
        Ok::<_, Status>(next.map(|next| (Frame::data(next), Some(messages))))
    });
    let messages = stream::once(async { Ok(Frame::data(first)) }).chain(rest);
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut request = Request::new(Body::new(StreamBody::new(messages)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| Status::internal(path))?;
    let token = headers.get(header::AUTHORIZATION).cloned();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // Whose certificate it was does not say who asks: as upstream's.
    headers.insert("grpcgateway-accept", HeaderValue::from_static(JSON));
    headers.extend(token.map(|token| (header::AUTHORIZATION, token)));
    let Ok(response) = routes.oneshot(request).await;
    let (parts, content) = response.into_parts();
    failure(&parts.headers)?;
    match method.is_server_streaming() {
        true => Ok(streamed(content, method.output())),
        false => one(content, method.output()).await,
    }
}

/// What a request's body holds: one JSON object after the other.
struct Messages {
    content: Body,
    buffer: BytesMut,
    limit: usize,
    kind: MessageDescriptor,
}

impl Messages {
    /// The next message, as gRPC sends it.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut ended = false;
        loop {
            if let Some(value) = self.take(ended)? {
                let options = DeserializeOptions::new().deny_unknown_fields(false);
                let kind = self.kind.clone();
                let message = DynamicMessage::deserialize_with_options(kind, value, &options);
                return frame(&message.map_err(|e| bad(&e))?).map(Some);
            }
            if ended {
                return Ok(None);
            }
            match self.content.frame().await {
                None => ended = true,
                Some(more) => self.buffer.extend_from_slice(&more?.into_data().unwrap_or_default()),
            }
            if self.buffer.len() > self.limit {
                return Err(bad(&format!("a request of more than {} bytes", self.limit)));
            }
        }
    }

    /// The next value of the buffer, if it is whole.
    fn take(&mut self, ended: bool) -> Result<Option<serde_json::Value>, Status> {
        let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter();
        match values.next() {
            None => Ok(None),
            Some(Err(e)) if e.is_eof() && !ended => Ok(None),
            Some(Err(e)) => Err(bad(&e)),
            Some(Ok(value)) => {
                let length = values.byte_offset();
                self.buffer.advance(length);
                Ok(Some(value))
            }
        }
    }
}

fn bad(e: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(e.to_string())
}

/// A message as gRPC sends it.
fn frame(message: &DynamicMessage) -> Result<Bytes, Status> {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.encoded_len()).map_err(|e| bad(&e))?);
    message.encode(&mut out).map_err(|e| bad(&e))?;
    Ok(out.freeze())
}

/// The outcome in headers or trailers, if it is there and not good.
fn failure(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

fn error(status: &Status) -> serde_json::Value {
    json!({"code": i32::from(status.code()), "message": status.message()})
}

async fn one(content: Body, kind: MessageDescriptor) -> Result<Response<Body>, Status> {
    let collected = content.collect().await?;
    if let Some(trailers) = collected.trailers() {
        failure(trailers)?;
    }
    let mut content = BytesMut::from(collected.to_bytes());
    let message = take(&mut content).ok_or_else(|| Status::internal("there was no answer"))?;
    Ok(body(StatusCode::OK, JSON, to_json(&message, kind)?))
}

/// One object per line, as messages come.
fn streamed(content: Body, kind: MessageDescriptor) -> Response<Body> {
    let lines = stream::unfold(Some((content, BytesMut::new(), kind)), |state| async {
        let (mut content, mut buffer, kind) = state?;
        loop {
            let line = match take(&mut buffer) {
                Some(message) => {
                    to_json(&message, kind.clone()).map(|json| format!("{{\"result\":{json}}}"))
                }
                None => match content.frame().await? {
                    Ok(frame) if frame.is_data() => {
                        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
                        continue;
                    }
                    Ok(frame) => match failure(&frame.into_trailers().unwrap_or_default()) {
                        Ok(()) => return None,
                        Err(status) => Err(status),
                    },
                    Err(status) => Err(status),
                },
            };
            let next = line.is_ok().then_some((content, buffer, kind));
            let line = line.unwrap_or_else(|status| json!({"error": error(&status)}).to_string());
            let frame = Frame::data(Bytes::from(format!("{line}\n")));
            return Some((Ok::<_, Status>(frame), next));
        }
    });
    let mut response = Response::new(Body::new(StreamBody::new(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// The next message of a buffer, if it is whole.
fn take(buffer: &mut BytesMut) -> Option<Bytes> {
    let mut prefix = buffer.get(1..PREFIX)?;
    let length = prefix.get_u32() as usize;
    if buffer.len() < PREFIX + length {
        return None;
    }
    buffer.advance(PREFIX);
    Some(buffer.split_to(length).freeze())
}

/// The fields in the order of the protocol.
fn to_json(message: &[u8], kind: MessageDescriptor) -> Result<String, Status> {
    let internal = |e: &dyn std::fmt::Display| Status::internal(e.to_string());
    let message = DynamicMessage::decode(kind, message).map_err(|e| internal(&e))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut out = serde_json::Serializer::new(Vec::new());
    message.serialize_with_options(&mut out, &options).map_err(|e| internal(&e))?;
    String::from_utf8(out.into_inner()).map_err(|e| internal(&e))
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).expect("three digits"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_method_of_the_protocol_has_its_path() {
        let mut without = Vec::new();
        for service in PROTOCOL.services() {
            for method in service.methods() {
                let has = |(_, s, m): &(&str, &str, &str)| {
                    *s == service.full_name() && *m == method.name()
                };
                if !PATHS.iter().any(has) {
                    without.push(method.full_name().to_owned());
                }
            }
        }
        // The range stream has none upstream either.
        assert_eq!(without, ["etcdserverpb.KV.RangeStream"]);
        for (path, ..) in PATHS {
            assert!(method(&format!("/v3/{path}")).is_some(), "{path}");
        }
        assert!(method("/v3/nothing").is_none());
    }

    async fn read(path: &str, pieces: &[&'static [u8]]) -> Result<Vec<serde_json::Value>, Status> {
        let kind = method(path).unwrap().input();
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from(*piece)))).collect();
        let content = Body::new(StreamBody::new(stream::iter::<Vec<Result<_, Status>>>(frames)));
        let buffer = BytesMut::new();
        let mut messages = Messages { content, buffer, limit: 200, kind: kind.clone() };
        let mut all = Vec::new();
        while let Some(message) = messages.next().await? {
            let json = to_json(&take(&mut BytesMut::from(message)).unwrap(), kind.clone())?;
            all.push(serde_json::from_str(&json).unwrap());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn numbers_are_strings_bytes_are_base_64_and_defaults_are_left_out() {
        let put = br#"{"key": "Zm9v", "lease": "7", "unknown": 1, "value": ""}"#;
        let got = read("/v3/kv/put", &[put]).await.unwrap();
        assert_eq!(got, [json!({"key": "Zm9v", "lease": "7"})]);
        let long = vec![b' '; 300].leak();
        for wrong in [&b"{"[..], br#"{"key": 1}"#, b"{} x", b"[1]", long] {
            let refused = read("/v3/kv/put", &[wrong]).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn messages_may_come_in_any_pieces() {
        let got = read("/v3/lease/keepalive", &[b" {\"ID\"", b": 1}{\"ID\": \"2", b"\"}\n", b""]);
        assert_eq!(got.await.unwrap(), [json!({"ID": "1"}), json!({"ID": "2"})]);
        assert!(read("/v3/lease/keepalive", &[]).await.unwrap().is_empty());
    }
}
