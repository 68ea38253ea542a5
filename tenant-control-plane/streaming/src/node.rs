//! One entry for everything that is forwarded: [`forward`].

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use machinery::{Reason, Status};
use rustls::ClientConfig;

use crate::body::{self, Body, BoxError};
use crate::dial::{Connection, Dialer, authority, is_local};
use crate::kubelet::Streams;
use crate::tls::{KubeletTls, anonymous_config, kubelet_config, tls_text};
use crate::{log, proxy, translate, tunnel, websocket};

/// Reaches kubelets, pods and services.
pub struct NodeClient {
    dialer: Dialer,
    kubelet_tls: Arc<ClientConfig>,
    anonymous_tls: Arc<ClientConfig>,
    local_proxies: bool,
}

impl NodeClient {
    /// A client that dials with `dialer` and shows kubelets the client certificate of `tls`.
    ///
    /// # Errors
    /// When the certificates or the key cannot be used.
    pub fn new(dialer: Dialer, tls: &KubeletTls) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            dialer,
            kubelet_tls: kubelet_config(tls)?,
            anonymous_tls: anonymous_config(),
            local_proxies: false,
        }))
    }

    /// Lets pod and service proxies reach addresses of this machine itself: for tests, whose
    /// backends live there.
    pub fn with_local_proxies(self: Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            dialer: self.dialer.clone(),
            kubelet_tls: self.kubelet_tls.clone(),
            anonymous_tls: self.anonymous_tls.clone(),
            local_proxies: true,
        })
    }

    /// Refuses targets that no pod can have: a pod's or endpoint's address is what its owner
    /// wrote, and must not lead to this machine, its link or its cloud's metadata service. Names
    /// stand for nodes alone.
    pub(crate) fn check_address(&self, target: &NodeTarget) -> Result<(), Status> {
        let local = is_local(&target.host);
        match local && !matches!(target.scheme, Scheme::Kubelet) && !self.local_proxies {
            true => Err(Status::bad_request("address not allowed")),
            false => Ok(()),
        }
    }

    /// Connects, with TLS where the target wants it.
    pub(crate) async fn connect(&self, target: &NodeTarget) -> std::io::Result<Connection> {
        let stream = self.dialer.dial(&target.host, target.port).await?;
        let (config, name) = match &target.scheme {
            Scheme::Plain => return Ok(stream),
            Scheme::Kubelet => (&self.kubelet_tls, &target.host),
            Scheme::AnonymousTls => (&self.anonymous_tls, &target.host),
            Scheme::Extension(extension) => (&extension.tls, &extension.server_name),
        };
        let (config, name) = (config.clone(), name.clone());
        let name = rustls_pki_types::ServerName::try_from(name).map_err(std::io::Error::other)?;
        let connecting = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        let stream = tokio::time::timeout(crate::dial::DIAL_TIMEOUT, connecting)
            .await
            .map_err(|_| {
                std::io::Error::new(std::io::ErrorKind::TimedOut, "TLS handshake timeout")
            })?
            .map_err(|e| std::io::Error::new(e.kind(), tls_text(&e)))?;
        Ok(Box::new(stream))
    }
}

/// An extension API server.
#[derive(Debug)]
pub struct Extension {
    /// Name that its certificate must have.
    pub server_name: String,
    /// Whose certificates are trusted, and the one that is shown to it.
    pub tls: Arc<ClientConfig>,
    /// Headers that say who asks, in place of any such headers of the client's.
    pub identity: HeaderMap,
}

/// How to talk to a target.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// TLS with the API server's kubelet client certificate.
    Kubelet,
    /// TLS without a client certificate, any serving certificate (`https:` proxies).
    AnonymousTls,
    /// No TLS (`http` proxies).
    Plain,
    /// TLS with the API server's proxy client certificate.
    Extension(Arc<Extension>),
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct NodeTarget {
    /// TLS or not.
    pub scheme: Scheme,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query there.
    pub path_and_query: String,
}

impl NodeTarget {
    /// A path on a kubelet.
    pub fn kubelet(host: String, port: u16, path_and_query: String) -> Self {
        Self { scheme: Scheme::Kubelet, host, port, path_and_query }
    }

    /// `host:port`, for the `Host` header and error texts.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// What the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `nodes|pods|services/proxy` and extension API servers: anything; upgrades pass as they are.
    Proxy,
    /// `pods/log`: plain HTTP, streamed.
    Log,
    /// `pods/exec` and `pods/attach` with these streams.
    Command(Streams),
    /// `pods/portforward`.
    PortForward,
}

/// Sends a request on and returns the answer, its body streaming.
///
/// For upgrades the returned response is the `101` (or the backend's refusal), and the bytes flow
/// in a task of their own once the server has written it. The request must be hyper's own (its
/// extensions carry the upgrade).
///
/// Errors are answered as a `Status` body: 503 when the target cannot be reached, 400 for an
/// upgrade that is not understood.
pub async fn forward<B>(
    client: &Arc<NodeClient>,
    request: Request<B>,
    target: NodeTarget,
    mode: Mode,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if let Err(status) = client.check_address(&target) {
        return status_response(&status);
    }
    let request = request.map(body::boxed);
    let answered = match (mode, websocket::is_upgrade(request.headers())) {
        (Mode::Command(streams), true) => {
            translate::serve(client.clone(), request, target, streams).await
        }
        (Mode::Log, true) => log::serve(client, request, &target).await,
        (Mode::PortForward, true) => tunnel::serve(client, request, target).await,
        (Mode::Command(_) | Mode::PortForward, false)
            if !request.headers().contains_key(header::UPGRADE) =>
        {
            Err(Status::bad_request("Upgrade request required"))
        }
        _ => proxy::serve(client, request, &target, mode).await,
    };
    answered.unwrap_or_else(|status| status_response(&status))
}

/// A Status as an HTTP response.
pub fn status_response(status: &Status) -> Response<Body> {
    let mut response = Response::new(body::full(status.to_json().to_string()));
    *response.status_mut() =
        http::StatusCode::from_u16(status.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// The Status for a target that cannot be reached.
pub(crate) fn unreachable(target: &NodeTarget, error: &dyn std::fmt::Display) -> Status {
    Status::new(
        Reason::ServiceUnavailable,
        format!("error trying to reach service: {}: {error}", target.authority()),
    )
}
