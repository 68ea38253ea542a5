//! Starts and stops the server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use marina_db::Db;
use marina_db::seal::Sealer;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::flags::{Command, Flags};
use crate::live::Bell;
use crate::password::LoginLimiter;
use crate::state::AppState;
use crate::{api, console, setup};

/// How long requests may go on after a termination signal.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may take to send the head of a request, the wait for it included.
const HEAD: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 10_000 });
/// How often the other end of an HTTP/2 connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// HTTP/2 as TLS names it.
const H2: &[u8] = b"h2";
/// Connections at the same time; further ones wait until one ends.
const CONNECTIONS: usize = 4096;

/// The executable's whole work.
///
/// # Errors
/// When the configuration cannot be used.
pub async fn main(flags: Flags) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "info,sqlx=warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(Command::Setup(flags)) = flags.command {
        return setup::run(flags).await;
    }
    let flags = flags.serve.context("--database and --secret-key-file are needed")?;
    let shutdown = CancellationToken::new();
    let cancel = shutdown.clone();
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        cancel.cancel();
    });
    run(Config::try_from(flags)?, shutdown).await
}

/// Serves until `shutdown`, then lets requests finish.
///
/// # Errors
/// When the database, the key or the certificate cannot be used, or the address is taken.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let db = Db::open(&config.database)
        .await
        .with_context(|| format!("--database {}", config.database.display()))?;
    let sealer = Sealer::load(&config.secret_key_file).context("--secret-key-file")?;
    let tls = config.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
    let state = AppState {
        bell: Bell::start(db.clone(), shutdown.clone()),
        db,
        sealer: Arc::new(sealer),
        logins: Arc::new(LoginLimiter::default()),
        secure_cookies: tls.is_some(),
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("--listen {}", config.listen))?;
    tracing::info!(address = %config.listen, tls = tls.is_some(), "the portal serves");
    serve(listener, tls, app(state), shutdown).await;
    Ok(())
}

/// All routes.
pub fn app(state: AppState) -> Router {
    api::router(state.clone()).merge(console::router(state))
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = room.clone().acquire_owned().await;
            listener.accept().await.map(|accepted| (accepted, place))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = shutdown.cancelled() => break,
        };
        let ((stream, peer), place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (app, tls, shutdown) = (app.clone(), tls.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _place = place;
            match tls {
                None => connection(stream, peer, app, builder(false), shutdown).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let builder = builder(stream.get_ref().1.alpn_protocol() == Some(H2));
                        connection(stream, peer, app, builder, shutdown).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    tasks.close();
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

/// How one connection is served. The protocol is known before its first byte: a connection that
/// never says which one it speaks would be waited for without end.
fn builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

async fn connection<S>(
    stream: S,
    peer: SocketAddr,
    app: Router,
    builder: auto::Builder<TokioExecutor>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        let app = app.clone();
        async move { tower::ServiceExt::oneshot(app, request).await }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, "the connection ended: {error}");
    }
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("--tls-cert-file {}", cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("--tls-private-key-file {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit")?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// An answer that takes longer than a request may.
    async fn slow() -> Body {
        let parts = futures::stream::iter(["slow ", "but whole"]).then(|part| async move {
            tokio::time::sleep(HEAD * 2).await;
            Ok::<_, std::io::Error>(part)
        });
        Body::from_stream(parts)
    }

    /// What a server answers to `sent` until it hangs up.
    async fn answer(sent: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/", get(|| async { "hello" })).route("/slow", get(slow));
        let server = tokio::spawn(serve(listener, None, app, CancellationToken::new()));
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("the server hangs up");
        server.abort();
        text
    }

    #[tokio::test]
    async fn who_does_not_finish_the_head_of_a_request_is_hung_up_on() {
        for sent in ["", "PRI * HTTP/2", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            assert!(!answer(sent).await.contains("hello"), "{sent:?}");
        }
        let whole = answer("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(whole.ends_with("hello"), "{whole}");
        let slow = answer("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(slow.contains("but whole"), "{slow}");
    }
}
