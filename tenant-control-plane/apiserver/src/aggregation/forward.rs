//! Passing a request on to an extension API server.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use machinery::{Reason, RequestInfo, Status, UserInfo};
use streaming::node::{Extension, Mode, NodeTarget, Scheme};

use super::Server;
use crate::api::Api;
use crate::hooks::target::resolve;
use crate::http::limit::is_long_running;
use crate::http::query::percent_decode;
use crate::http::{Request, Response, respond};

/// How long a server may take to begin its answer: to a request for a document, and to any other
/// that is no watch and no connection.
const LIMITS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Passes a request on to one of the server's endpoints and returns its answer.
pub async fn forward(
    api: &Arc<Api>,
    request: Request,
    info: &RequestInfo,
    server: &Server,
    user: &UserInfo,
) -> Response {
    let limit = LIMITS[usize::from(info.is_resource_request)];
    let upgrade = request.headers().get(header::UPGRADE);
    let is_unlimited = is_long_running(info) || upgrade.is_some();
    let target = match server.is_available {
        _ if !is_plain(&info.path) || !upgrade.is_none_or(is_known_upgrade) => {
            Err(Status::bad_request("this request cannot be passed on to an extension API server"))
        }
        true => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            server.target(api, user, path.to_owned())
        }
        false => Err(unavailable(&format!("APIService {} is not available", server.name))),
    };
    let target = match target {
        Ok(target) => target,
        Err(status) => return respond::error(&status),
    };
    let answer = streaming::forward(&api.node_client, request, target, Mode::Proxy);
    if is_unlimited {
        return answer.await;
    }
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let text = format!("APIService {} did not answer within {limit:?}", server.name);
        respond::error(&Status::new(Reason::Timeout, text))
    })
}

/// False for a path that a server might take for another one than was authorized: with segments
/// that are empty, dots, or hold a slash.
fn is_plain(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').all(|segment| {
        let segment = percent_decode(segment, false);
        !segment.is_empty() && segment != "." && segment != ".." && !segment.contains('/')
    })
}

/// Other protocols than these, such as HTTP/2, carry requests that nobody has authorized.
fn is_known_upgrade(protocol: &HeaderValue) -> bool {
    let protocol = protocol.to_str().unwrap_or_default();
    protocol.eq_ignore_ascii_case("websocket") || protocol.eq_ignore_ascii_case("SPDY/3.1")
}

fn unavailable(why: &str) -> Status {
    Status::new(Reason::ServiceUnavailable, format!("service unavailable: {why}"))
}

impl Server {
    /// A path at one of the endpoints, asked for by a user.
    fn target(&self, api: &Api, user: &UserInfo, path: String) -> Result<NodeTarget, Status> {
        let (host, port, in_cluster) =
            resolve(&api.caches, &self.namespace, &self.service, self.port)
                .map_err(|why| unavailable(&why))?;
        if !in_cluster {
            let service = &self.service;
            return Err(unavailable(&format!("service {service:?} leads out of the cluster")));
        }
        self.target_at(host, port, user, path)
    }

    /// A path at an endpoint, asked for by a user.
    pub(super) fn target_at(
        &self,
        host: String,
        port: u16,
        user: &UserInfo,
        path_and_query: String,
    ) -> Result<NodeTarget, Status> {
        let tls = self.tls.clone().map_err(Status::internal)?;
        let server_name = format!("{}.{}.svc", self.service, self.namespace);
        let extension = Extension { server_name, tls, identity: identity(user)? };
        Ok(NodeTarget {
            scheme: Scheme::Extension(Arc::new(extension)),
            host,
            port,
            path_and_query,
        })
    }
}

/// The headers that say who asks. A user of whom not everything can be said is not passed on.
fn identity(user: &UserInfo) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, text: &str| -> anyhow::Result<()> {
        // Who reads a header leaves that away, and sees another user or group.
        anyhow::ensure!(text.trim() == text, "{text:?} begins or ends with white space");
        let (name, value) =
            (name.parse::<HeaderName>()?, HeaderValue::from_bytes(text.as_bytes())?);
        headers.append(name, value);
        Ok(())
    };
    let mut add_all = || -> anyhow::Result<()> {
        add("x-remote-user", &user.name)?;
        if !user.uid.is_empty() {
            add("x-remote-uid", &user.uid)?;
        }
        for group in &user.groups {
            add("x-remote-group", group)?;
        }
        for (key, values) in &user.extra {
            let name = format!("x-remote-extra-{}", escaped(key));
            values.iter().try_for_each(|value| add(&name, value))?;
        }
        Ok(())
    };
    add_all().map_err(|e| Status::internal(format!("the user cannot be told in headers: {e}")))?;
    Ok(headers)
}

/// A key as part of a header's name: what may not be in one is percent-encoded.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn headers_say_everything_about_the_user() {
        let user = UserInfo {
            name: "böb".into(),
            uid: "u1".into(),
            groups: vec!["a".into(), "b".into()],
            extra: BTreeMap::from([("example.org/a b".into(), vec!["x".into(), "y".into()])]),
        };
        let headers = identity(&user).unwrap();
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values.map(|v| String::from_utf8(v.as_bytes().to_vec()).unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), ["böb"]);
        assert_eq!(all("x-remote-uid"), ["u1"]);
        assert_eq!(all("x-remote-group"), ["a", "b"]);
        assert_eq!(all("x-remote-extra-example.org%2fa%20b"), ["x", "y"]);
        for group in ["a\nb", " system:masters"] {
            let odd = UserInfo { groups: vec![group.into()], ..user.clone() };
            assert_eq!(identity(&odd).unwrap_err().code, 500, "{group}");
        }
    }

    #[test]
    fn a_path_is_passed_on_only_if_everybody_reads_it_alike() {
        for path in ["/apis/g/v1", "/apis/g/v1/", "/apis/g/v1/things/a%20b"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/apis/g/v1/things/x%2Fstatus",
            "/apis/g/v1/things/%2e%2E/x",
            "/apis/g/v1//x",
            "//apis",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
