//! Sending one HTTP/1.1 request to a backend, upgrades included.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use machinery::{Reason, Status};

use crate::body::{self, Body};
use crate::links::Links;
use crate::node::{Mode, NodeClient, NodeTarget, Scheme, unreachable};
use crate::websocket;

/// Headers that belong to one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Longest answer to a refused upgrade that is shown to the user, in bytes.
pub(crate) const LONGEST_REFUSAL: usize = 64 * 1024;

/// Forwards a request; an upgrade passes byte for byte.
pub(crate) async fn serve(
    client: &Arc<NodeClient>,
    mut request: Request<Body>,
    target: &NodeTarget,
    mode: Mode,
) -> Result<Response<Body>, Status> {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let on_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, sent_body) = request.into_parts();
    let mut headers = parts.headers;
    forwarded_for(&mut headers, &parts.uri, target);
    clean_request(&mut headers);
    let is_page = match &target.scheme {
        Scheme::Extension(extension) => {
            headers.extend(extension.identity.clone());
            false
        }
        _ => mode == Mode::Proxy,
    };
    let links = is_page.then(|| Links::of(&parts.uri, target)).flatten();
    if links.is_some() {
        // Links of a compressed page could not be changed.
        headers.remove(header::ACCEPT_ENCODING);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let sent = send(client, target, parts.method, headers, sent_body).await;
    let mut response = sent.map_err(|e| unreachable(target, &e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        if !is_page && mode == Mode::Proxy {
            refuse_redirect(&response)?;
        }
        if mode == Mode::Log && !response.status().is_success() {
            return Err(log_refusal(response).await);
        }
        let mut response = response.map(body::boxed);
        clean_response(response.headers_mut(), mode);
        return Ok(match links {
            Some(links) => links.rewrite(response),
            None => response,
        });
    }
    let Some(on_upgrade) = on_upgrade else {
        return Err(Status::internal("the backend switched protocols unasked"));
    };
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let (Ok(client), Ok(backend)) = (on_upgrade.await, backend.await) else { return };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        // An error is one side's end; the other is closed by dropping it.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
    });
    Ok(response.map(|_| body::empty()))
}

/// Where an extension API server would send the client, the client's credentials might go too
/// (CVE-2022-3172).
fn refuse_redirect(response: &Response<Incoming>) -> Result<(), Status> {
    let leads_away =
        response.status().is_redirection() && response.headers().contains_key(header::LOCATION);
    match leads_away {
        true => {
            let mut status = Status::new(
                Reason::ServiceUnavailable,
                "the backend attempted to redirect this request, which is not permitted",
            );
            status.code = StatusCode::BAD_GATEWAY.as_u16();
            Err(status)
        }
        false => Ok(()),
    }
}

/// The kubelet's words about a log that it cannot show (a container that waits to start, one that
/// is not there) as a Status.
pub(crate) async fn log_refusal(response: Response<Incoming>) -> Status {
    let reason = match response.status().as_u16() {
        400 => Reason::BadRequest,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        503 => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    let collected = Limited::new(response.into_body(), LONGEST_REFUSAL).collect().await;
    let bytes = collected.map(|c| c.to_bytes()).unwrap_or_default();
    Status::new(reason, String::from_utf8_lossy(&bytes).trim())
}

/// Sends a request over a new connection and returns the head of the answer.
pub(crate) async fn send(
    client: &NodeClient,
    target: &NodeTarget,
    method: Method,
    mut headers: HeaderMap,
    sent_body: Body,
) -> anyhow::Result<Response<Incoming>> {
    let stream = client.connect(target).await?;
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("A connection to a node ended: {error}.");
        }
    });
    headers.insert(header::HOST, HeaderValue::from_str(&target.authority())?);
    let mut request =
        Request::builder().method(method).uri(&target.path_and_query).body(sent_body)?;
    *request.headers_mut() = headers;
    Ok(sender.send_request(request).await?)
}

/// Removes what belongs to the client's connection, and its credentials: the backend must learn
/// neither its token nor whom it may impersonate.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::COOKIE);
    remove_bearer_subprotocol(headers);
    let identity: Vec<_> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("impersonate-") || name.starts_with("x-remote-")
        })
        .cloned()
        .collect();
    identity.iter().for_each(|name| {
        headers.remove(name);
    });
}

/// A WebSocket client may have sent its token as a subprotocol.
fn remove_bearer_subprotocol(headers: &mut HeaderMap) {
    let offered = websocket::offered(headers);
    let kept: Vec<_> =
        offered.iter().filter(|p| !p.starts_with(websocket::BEARER)).map(String::as_str).collect();
    if kept.len() == offered.len() {
        return;
    }
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
        && !kept.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

fn clean_response(headers: &mut HeaderMap, mode: Mode) {
    strip_hop_by_hop(headers);
    if mode == Mode::Log {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    // Cross-origin rules and cookies of a proxied page must not apply to the API server's origin.
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        header::ACCESS_CONTROL_MAX_AGE,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ] {
        headers.remove(name);
    }
}

fn forwarded_for(headers: &mut HeaderMap, uri: &http::Uri, target: &NodeTarget) {
    if matches!(target.scheme, Scheme::Kubelet | Scheme::Extension(_)) {
        return;
    }
    let host = headers.get(header::HOST).cloned();
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host);
    }
    if let Ok(path) = HeaderValue::from_str(uri.path()) {
        headers.insert("x-forwarded-uri", path);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
}
