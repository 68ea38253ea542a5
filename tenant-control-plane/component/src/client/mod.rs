//! The API client of a component: one HTTP/2 connection, no client-side rate limit, credentials
//! re-read when their files change. [`Accounts`] makes clients that act as ServiceAccounts instead.

mod accounts;
mod connector;
mod identity;
mod tokens;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Client;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::{BoxError, ServiceBuilder};

pub use self::accounts::{Account, Accounts};
use self::connector::TlsConnector;
use self::identity::FileIdentity;

/// Pings on an idle connection, so that a dead server is noticed within 45 s (as in client-go).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Makes a client from a kubeconfig file. `component` goes into the User-Agent.
///
/// Certificates and keys that the kubeconfig names by path are read again when their files change;
/// then new requests use a new connection, so that a rotated certificate takes effect before the old
/// one expires.
///
/// # Errors
/// When the file cannot be read or parsed, or names files that cannot be read.
pub async fn from_kubeconfig(path: &Path, component: &str) -> anyhow::Result<Client> {
    from_config(read_kubeconfig(path).await?, component)
}

/// The configuration that a kubeconfig file describes.
///
/// # Errors
/// When the file cannot be read or parsed.
pub async fn read_kubeconfig(path: &Path) -> anyhow::Result<kube::Config> {
    let kubeconfig = Kubeconfig::read_from(path)
        .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("using the kubeconfig {}", path.display()))
}

/// Makes a client from a parsed configuration; see [`from_kubeconfig`].
///
/// # Errors
/// When a certificate or key in it cannot be used.
pub fn from_config(config: kube::Config, component: &str) -> anyhow::Result<Client> {
    let transport = Transport::new(&config, component)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(Client::new(service, config.default_namespace))
}

type Http = HyperClient<TlsConnector, Body>;

fn hyper_client(connector: TlsConnector) -> Http {
    HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}

/// Sends requests over the current connection pool, and starts a new pool when the client
/// certificate on disk has changed.
#[derive(Clone)]
struct Transport {
    connector: TlsConnector,
    /// The identity's generation that the pool was made for, and the pool.
    current: Arc<Mutex<(u64, Http)>>,
    identity: Option<Arc<FileIdentity>>,
    agent: HeaderValue,
}

impl Transport {
    fn new(config: &kube::Config, component: &str) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut tls = config.rustls_client_config().context("preparing TLS for the API client")?;
        let identity = FileIdentity::from_auth(&config.auth_info)?;
        if let Some(identity) = &identity {
            tls.client_auth_cert_resolver = identity.clone();
        }
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let connector = TlsConnector::new(Arc::new(tls), config.tls_server_name.clone());
        let agent = format!("{component}/{} (linux) marina", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            connector: connector.clone(),
            current: Arc::new(Mutex::new((0, hyper_client(connector)))),
            identity,
            agent: HeaderValue::from_str(&agent).context("the component's name in User-Agent")?,
        })
    }

    /// The same over a connection of its own.
    fn separate(&self) -> Self {
        let current = Arc::new(Mutex::new((0, hyper_client(self.connector.clone()))));
        Self { current, ..self.clone() }
    }

    fn pool(&self) -> Http {
        let generation = self.identity.as_ref().map_or(0, |identity| identity.refresh());
        let mut current = self.current.lock().expect("no code panics while it holds this lock");
        if current.0 != generation {
            *current = (generation, hyper_client(self.connector.clone()));
        }
        current.1.clone()
    }
}

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(header::USER_AGENT, self.agent.clone());
        let pool = self.pool();
        Box::pin(async move { Ok(pool.request(request).await?) })
    }
}
