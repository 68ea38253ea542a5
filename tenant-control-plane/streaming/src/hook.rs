//! Calls of webhooks: a JSON document goes there, another comes back.
//!
//! A webhook behind a Service is reached as the Service proxy reaches it, through the dialer for
//! the cluster's network; one behind a URL through the dialer for the control plane's. Redirects
//! are never followed, and the caller's credentials never go along. Connections are kept for a
//! while, because webhooks are called for every write that they select.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use crate::dial::{Connection, Dialer, is_local};
use crate::tls::{tls_text, verifying_config};

/// Longest answer, in bytes: a conversion answers with all objects that it was given.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
/// An idle connection is used again within this time.
const IDLE: Duration = Duration::from_secs(30);
/// Idle connections that are kept to one endpoint.
const IDLE_MAX: usize = 4;
/// Endpoints and authorities that are remembered; beyond it all are forgotten.
const REMEMBERED: usize = 256;

/// Where a webhook listens, and how it proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// True for an endpoint of a Service: it is in the cluster's network, and never on this
    /// machine.
    pub in_cluster: bool,
    /// Name or address to dial, without brackets.
    pub host: String,
    /// TCP port to dial.
    pub port: u16,
    /// Name that the serving certificate must have.
    pub server_name: String,
    /// `host[:port]` in the URL, which is shown in errors and sent as `Host`.
    pub authority: String,
    /// PEM of the authorities that may have signed the certificate; empty: this machine's.
    pub ca_bundle: Arc<[u8]>,
}

/// What a webhook answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub code: u16,
    /// The whole body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// Calls webhooks.
pub struct HookClient {
    services: Dialer,
    urls: Dialer,
    configurations: Mutex<HashMap<Arc<[u8]>, Arc<ClientConfig>>>,
    idle: Mutex<HashMap<Endpoint, Vec<(Sender, Instant)>>>,
}

impl HookClient {
    /// A client that reaches Services with one dialer and URLs with another.
    pub fn new(services: Dialer, urls: Dialer) -> Self {
        Self { services, urls, configurations: Mutex::default(), idle: Mutex::default() }
    }

    /// Posts a document and returns the answer, whatever its HTTP status.
    ///
    /// # Errors
    /// When there is no answer within `limit`. The text is upstream's:
    /// `Post "https://...": context deadline exceeded`.
    pub async fn post(
        &self,
        endpoint: &Endpoint,
        path_and_query: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Reply, String> {
        let exchanged = self.exchange(endpoint, path_and_query, body);
        let outcome = match tokio::time::timeout(limit, exchanged).await {
            Ok(outcome) => outcome.map_err(|e| format!("{e:#}")),
            Err(_) => Err("context deadline exceeded".to_owned()),
        };
        outcome.map_err(|e| format!("Post \"https://{}{path_and_query}\": {e}", endpoint.authority))
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        path_and_query: &str,
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::post(path_and_query)
            .header(header::HOST, &endpoint.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(Full::new(body))?;
        while let Some(mut sender) = self.take(endpoint) {
            match sender.try_send_request(request).await {
                Ok(response) => return self.finish(endpoint, sender, response).await,
                // The peer had closed it: nothing was sent, and another connection may serve.
                Err(mut refused) => match refused.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(refused.into_error().into()),
                },
            }
        }
        let mut sender = self.connect(endpoint).await?;
        let response = sender.send_request(request).await?;
        self.finish(endpoint, sender, response).await
    }

    async fn finish(
        &self,
        endpoint: &Endpoint,
        sender: Sender,
        response: Response<Incoming>,
    ) -> anyhow::Result<Reply> {
        let code = response.status().as_u16();
        let collected = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = collected.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
        self.keep(endpoint, sender);
        Ok(Reply { code, body })
    }

    async fn connect(&self, endpoint: &Endpoint) -> anyhow::Result<Sender> {
        if endpoint.in_cluster && is_local(&endpoint.host) {
            anyhow::bail!("address not allowed");
        }
        let dialer = if endpoint.in_cluster { &self.services } else { &self.urls };
        let stream = dialer.dial(&endpoint.host, endpoint.port).await?;
        let stream = self.secure(endpoint, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("A connection to a webhook ended: {error}.");
            }
        });
        Ok(sender)
    }

    async fn secure(&self, endpoint: &Endpoint, stream: Connection) -> anyhow::Result<Connection> {
        let config = self.configuration(&endpoint.ca_bundle)?;
        let name = rustls_pki_types::ServerName::try_from(endpoint.server_name.clone())?;
        let connected = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
        let stream = connected.map_err(|e| anyhow::anyhow!(tls_text(&e)))?;
        Ok(Box::new(stream))
    }

    fn configuration(&self, ca_bundle: &Arc<[u8]>) -> anyhow::Result<Arc<ClientConfig>> {
        let mut known = self.configurations.lock().expect("no panic while locked");
        if let Some(config) = known.get(ca_bundle) {
            return Ok(config.clone());
        }
        let config = verifying_config(ca_bundle)?;
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(ca_bundle.clone(), config.clone());
        Ok(config)
    }

    /// An idle connection that still seems to be open.
    fn take(&self, endpoint: &Endpoint) -> Option<Sender> {
        let mut idle = self.idle.lock().expect("no panic while locked");
        let open = idle.get_mut(endpoint)?;
        while let Some((sender, since)) = open.pop() {
            if since.elapsed() < IDLE && sender.is_ready() {
                return Some(sender);
            }
        }
        idle.remove(endpoint);
        None
    }

    fn keep(&self, endpoint: &Endpoint, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().expect("no panic while locked");
        if idle.len() >= REMEMBERED {
            idle.clear();
        }
        let open = idle.entry(endpoint.clone()).or_default();
        open.retain(|(sender, since)| since.elapsed() < IDLE && !sender.is_closed());
        if open.len() < IDLE_MAX {
            open.push((sender, Instant::now()));
        }
    }
}
