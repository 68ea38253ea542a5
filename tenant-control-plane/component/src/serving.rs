//! The small HTTPS server of a component: health checks and metrics.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Flags of the secure port, as control-plane components have them.
#[derive(Args, Clone, Debug)]
pub struct ServingFlags {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// HTTPS port for health and metrics; 0 turns it off.
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// Serving certificate; self-signed when neither it nor the key is given.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
}

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Named checks behind `/healthz`, `/livez` and `/readyz`.
#[derive(Default)]
pub struct Health {
    live: Vec<(&'static str, Check)>,
    ready: Vec<(&'static str, Check)>,
}

impl Health {
    /// No checks: always healthy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that all three paths ask.
    #[must_use]
    pub fn live(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.live.push((name, Box::new(check)));
        self
    }

    /// Adds a check that only `/readyz` asks.
    #[must_use]
    pub fn ready(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ready.push((name, Box::new(check)));
        self
    }

    fn report(&self, path: &str, verbose: bool) -> (StatusCode, String) {
        let also = if path == "/readyz" { self.ready.as_slice() } else { &[] };
        let (mut text, mut failed) = ("[+]ping ok\n".to_owned(), false);
        for (name, check) in self.live.iter().chain(also) {
            match check() {
                Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    failed = true;
                    text.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        let what = path.trim_start_matches('/');
        match (failed, verbose) {
            (true, _) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{what} check failed\n"))
            }
            (false, true) => (StatusCode::OK, format!("{text}{what} check passed\n")),
            (false, false) => (StatusCode::OK, "ok".to_owned()),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
        let (status, text) = match request.uri().path() {
            path @ ("/healthz" | "/livez" | "/readyz") => self.report(path, verbose),
            "/metrics" => (StatusCode::OK, metrics::render()),
            _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

/// Serves until shutdown, in tasks of its own. Returns the address that it listens on, or `None`
/// when the port is 0.
///
/// # Errors
/// When the certificate cannot be used or the address cannot be bound.
pub async fn start(
    flags: &ServingFlags,
    default_port: u16,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<SocketAddr>> {
    let address = SocketAddr::new(flags.bind_address, flags.secure_port.unwrap_or(default_port));
    if address.port() == 0 {
        return Ok(None);
    }
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(flags)?));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address} (--bind-address, --secure-port)"))?;
    let health = Arc::new(health);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((tcp, _)) = accepted else {
                // Out of file descriptors, most likely: give them time to come back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (acceptor, health) = (acceptor.clone(), health.clone());
            tokio::spawn(async move {
                let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(tcp));
                if let Ok(Ok(stream)) = handshake.await {
                    serve(stream, health).await;
                }
            });
        }
    });
    Ok(Some(address))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, health: Arc<Health>) {
    let service = service_fn(move |request| {
        let health = health.clone();
        async move { Ok::<_, Infallible>(health.answer(&request)) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a health connection ended: {error}");
    }
}

fn tls_config(flags: &ServingFlags) -> anyhow::Result<ServerConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (chain, key) = match (&flags.tls_cert_file, &flags.tls_private_key_file) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| anyhow!("--tls-cert-file {}: {error}", cert.display()))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| anyhow!("--tls-private-key-file {}: {error}", key.display()))?;
            (chain, key)
        }
        (None, None) => self_signed(flags.bind_address)?,
        _ => anyhow::bail!("--tls-cert-file and --tls-private-key-file go together"),
    };
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("using the serving certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn self_signed(
    address: IpAddr,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let names = vec!["localhost".to_owned(), address.to_string()];
    let made = rcgen::generate_simple_self_signed(names).context("making a serving certificate")?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok((vec![made.cert.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_check_is_named() {
        let health = Health::new()
            .live("election", || Ok(()))
            .ready("caches", || Err("pods are missing".to_owned()));
        assert_eq!(health.report("/livez", false), (StatusCode::OK, "ok".to_owned()));
        let (status, text) = health.report("/readyz", false);
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.contains("[+]election ok\n[-]caches failed: pods are missing\n"), "{text}");
    }
}
