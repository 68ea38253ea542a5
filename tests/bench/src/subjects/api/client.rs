//! Requests over few HTTP/2 connections, with TLS and a client certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::control::{self, Files};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

/// How long TCP and TLS may take together.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// Flow control as in Go's client: a stream may be 4 MiB ahead, a connection as good as unlimited.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// How often a client comes back to a server that is too busy.
const MOST_RETRIES: usize = 10;
/// Most of an answer that is an error, bytes.
const ERROR_LENGTH: usize = 64 << 10;

/// What a body is, or what a client would like to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// JSON, as kubectl and most programs that are not written in Go.
    Json,
    /// Protobuf, as client-go's typed clients, which all components are; JSON where there is none.
    Protobuf,
    /// A table in JSON, as `kubectl get`.
    Table,
    /// The metadata alone, in JSON.
    Metadata,
}

impl Media {
    fn accept(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf,application/json",
            Self::Table => {
                "application/json;as=Table;v=v1;g=meta.k8s.io,\
                 application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            }
            Self::Metadata => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        }
    }
}

/// What a request carries.
#[derive(Clone, Debug)]
pub struct Body {
    content_type: &'static str,
    bytes: Bytes,
}

impl Body {
    /// A JSON document.
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: "application/json", bytes: bytes.into() }
    }

    /// An object in protobuf, with its envelope.
    pub fn protobuf(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: "application/vnd.kubernetes.protobuf", bytes: bytes.into() }
    }

    /// A strategic merge patch.
    pub fn strategic_patch(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: "application/strategic-merge-patch+json", bytes: bytes.into() }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    accept: Media,
    body: Option<Body>,
}

impl Call {
    /// A request that carries nothing. `path` begins with a slash and may have a query.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), accept: Media::Json, body: None }
    }

    /// A request that carries something, such as POST.
    pub fn with_body(method: Method, path: impl Into<String>, body: Body) -> Self {
        Self { method, path: path.into(), accept: Media::Json, body: Some(body) }
    }

    /// A deletion that waits for nobody.
    pub fn delete(path: impl Into<String>) -> Self {
        let options =
            r#"{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#.as_bytes();
        Self::with_body(Method::DELETE, path, Body::json(options))
    }

    /// Asks for another form of the answer than JSON.
    #[must_use]
    pub fn accept(mut self, media: Media) -> Self {
        self.accept = media;
        self
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let url = format!("https://127.0.0.1:{}{}", control::PORT, self.path);
        let mut request = Request::builder()
            .method(&self.method)
            .uri(url)
            .header(header::USER_AGENT, "marina-bench")
            .header(header::ACCEPT, self.accept.accept());
        let mut bytes = Bytes::new();
        if let Some(body) = &self.body {
            request = request.header(header::CONTENT_TYPE, body.content_type);
            bytes = body.bytes.clone();
        }
        Ok(request.body(Full::new(bytes))?)
    }
}

/// A client certificate, and whom it trusts.
#[derive(Clone)]
pub struct Identity(Arc<ClientConfig>);

impl Identity {
    /// A user of the cluster whose authorities `files` holds.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn new(files: &Files, user: &str, group: Option<&str>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(files.pki.cluster.cert_pem.as_bytes()) {
            roots.add(certificate.context("the cluster's authority")?)?;
        }
        let issued = files.client(user, group)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes())
            .collect::<Result<_, _>>()
            .context("a client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
            .context("a client certificate's key")?;
        let mut provider = default_provider();
        // Go's client prefers this one; a server may follow its client's preference.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != cipher_suite::TLS13_AES_128_GCM_SHA256.suite());
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // As Go's by default: every connection is a full handshake.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

/// Connections of one user. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Client {
    identity: Identity,
    connections: Arc<[Mutex<Connection>]>,
}

type Connection = SendRequest<Full<Bytes>>;

impl Client {
    /// Opens so many connections. They end with the last clone.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn connect(identity: &Identity, connections: usize) -> anyhow::Result<Self> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Mutex::new(dial(identity).await?));
        }
        Ok(Self { identity: identity.clone(), connections: open.into() })
    }

    /// Sends a request over the connection of `client`, and returns when the head of the answer is
    /// there.
    ///
    /// # Errors
    /// The connection broke, or the answer is an error; it says which.
    pub async fn send(&self, client: usize, call: &Call) -> anyhow::Result<Response<Incoming>> {
        accepted(call, self.ask(client, call).await?).await
    }

    /// As [`Self::send`], but comes back when a server that is too busy says when to, as client-go does.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn insist(&self, client: usize, call: &Call) -> anyhow::Result<Response<Incoming>> {
        for _ in 0..MOST_RETRIES {
            let response = self.ask(client, call).await?;
            let later = response.headers().get(header::RETRY_AFTER);
            let later = later.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
            match later {
                Some(seconds) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                _ => return accepted(call, response).await,
            }
        }
        self.send(client, call).await
    }

    async fn ask(&self, client: usize, call: &Call) -> anyhow::Result<Response<Incoming>> {
        let what = || format!("{} {}", call.method, call.path);
        let slot = &self.connections[client % self.connections.len()];
        let mut connection = lock(slot).clone();
        match connection.try_send_request(call.request()?).await {
            Ok(response) => Ok(response),
            // Not sent: servers close connections that rest. Another connection, and once more.
            Err(mut refused) => match refused.take_message() {
                Some(request) => {
                    let mut fresh = dial(&self.identity).await.with_context(what)?;
                    *lock(slot) = fresh.clone();
                    fresh.send_request(request).await.with_context(what)
                }
                None => Err(refused.into_error()).with_context(what),
            },
        }
    }

    /// Sends a request and returns the whole body of the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn read(&self, client: usize, call: &Call) -> anyhow::Result<Bytes> {
        let body = self.send(client, call).await?.into_body();
        Ok(body.collect().await.with_context(|| call.path.clone())?.to_bytes())
    }

    /// Sends a request, and checks that the answer has at least so many bytes. Keeps none of them.
    ///
    /// # Errors
    /// As [`Self::send`], or the answer is shorter.
    pub async fn expect(&self, client: usize, call: &Call, least: usize) -> anyhow::Result<()> {
        let mut body = self.send(client, call).await?.into_body();
        let mut length = 0;
        while let Some(chunk) = next_chunk(&mut body).await? {
            length += chunk.len();
        }
        ensure!(length >= least, "{}: {length} bytes, less than {least}", call.path);
        Ok(())
    }
}

/// The next bytes of a body; nothing at its end.
///
/// # Errors
/// The connection broke.
pub async fn next_chunk(body: &mut Incoming) -> anyhow::Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame.context("reading a body")?.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().expect("no code panics while it holds this lock")
}

async fn dial(identity: &Identity) -> anyhow::Result<Connection> {
    let connecting = async {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, control::PORT)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let tls = tokio_rustls::TlsConnector::from(identity.0.clone()).connect(name, tcp).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(tls))
            .await?;
        // Ends with the last sender. An error reaches whoever waits for an answer.
        tokio::spawn(connection);
        anyhow::Ok(sender)
    };
    tokio::time::timeout(CONNECT_WITHIN, connecting).await.context("connecting took too long")?
}

/// Passes a good answer on.
async fn accepted(call: &Call, response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = Limited::new(response.into_body(), ERROR_LENGTH).collect().await;
    let text = text.map(|body| body.to_bytes()).unwrap_or_default();
    bail!("{} {}: {status}: {}", call.method, call.path, reason(&text))
}

/// The message of a Status, or the text as it is.
fn reason(body: &[u8]) -> String {
    let status: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = status.as_ref().and_then(|status| status["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_message() {
        assert_eq!(
            reason(br#"{"kind":"Status","message":"pods \"a\" not found"}"#),
            "pods \"a\" not found"
        );
        assert_eq!(reason(b"404 page not found\n"), "404 page not found");
    }

    #[test]
    fn a_request_says_what_it_carries_and_wants() {
        let call = Call::with_body(Method::POST, "/api/v1/pods", Body::protobuf(&b"k8s\0"[..]));
        let request = call.accept(Media::Protobuf).request().unwrap();
        assert_eq!(request.uri().path(), "/api/v1/pods");
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf");
        assert!(request.headers()[header::ACCEPT].to_str().unwrap().ends_with(",application/json"));
        assert!(
            Call::get("/readyz").request().unwrap().headers().get(header::CONTENT_TYPE).is_none()
        );
    }
}
