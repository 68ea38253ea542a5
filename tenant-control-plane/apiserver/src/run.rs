//! Starts the server's parts, and ends them in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use auth::authz::AuthorizerConfig;
use auth::{Authenticator, Authorizer};
use machinery::ObjectSource;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::aggregation::Aggregation;
use crate::alloc::ServiceAllocator;
use crate::api::Api;
use crate::bootstrap;
use crate::cache::Caches;
use crate::cache::feed::Feed;
use crate::config::Config;
use crate::discovery::openapi::Documents;
use crate::health::Health;
use crate::http::connection;
use crate::http::limit::Limits;
use crate::kinds::Table;
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::registry::charge::Turns;
use crate::store::{Store, compaction};

/// Requests in flight get this long to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Requests beyond the limits wait this long for a place.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the store is asked again while it is not there yet.
const STORE_RETRY: Duration = Duration::from_millis(250);

/// Starts logging to standard error.
pub fn init_logging(v: u8) {
    let directives = match v {
        0..=3 => "info,h2=warn,hyper=warn,rustls=warn,tonic=warn,tower=warn",
        4..=5 => "debug,h2=info,hyper=info,rustls=info,tonic=info,tower=info,hyper_util=info",
        _ => "trace,h2=info",
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}

/// A token that is cancelled by SIGTERM or SIGINT; a second signal ends the process at once.
pub fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        cancel.cancel();
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        std::process::exit(1);
    });
    Ok(token)
}

/// Serves until `shutdown` is cancelled.
///
/// # Errors
/// When the configuration's files cannot be used or the port is taken. An etcd that does not
/// answer is waited for.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tls = serving_tls(&config)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let background = CancellationToken::new();
    let Some(api) = assemble(config, listener.local_addr()?.port(), &background, &shutdown).await?
    else {
        return Ok(());
    };
    let stop_serving = CancellationToken::new();
    let stack = crate::serve::stack(api.clone());
    tracing::info!(address = %listener.local_addr()?, "serving");
    let serving =
        tokio::spawn(connection::serve(listener, tls, stack, stop_serving.clone(), DRAIN));
    let bootstrapping = tokio::spawn(bootstrap::run(api.clone(), background.clone()));

    shutdown.cancelled().await;
    tracing::info!("shutting down");
    api.health.shut_down();
    tokio::time::sleep(api.config.shutdown_delay).await;
    // Others must stop sending requests here before this server stops taking them.
    background.cancel();
    let _ = bootstrapping.await;
    api.stopping.cancel();
    stop_serving.cancel();
    let _ = serving.await;
    Ok(())
}

fn serving_tls(config: &Config) -> anyhow::Result<TlsAcceptor> {
    let flags = &config.flags;
    let authorities: Vec<_> = [&flags.client_ca_file, &flags.requestheader_client_ca_file]
        .into_iter()
        .filter_map(|path| path.as_deref())
        .collect();
    let tls = crate::tls::server(&flags.tls_cert_file, &flags.tls_private_key_file, &authorities)?;
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Puts the server together and fills its caches; `None` when it is told to stop meanwhile.
async fn assemble(
    mut config: Config,
    port: u16,
    background: &CancellationToken,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Arc<Api>>> {
    config.secure_port = port;
    let client =
        etcd_api::client::connect(&config.flags.etcd_servers, config.etcd_tls()?.as_ref())?;
    let store = Store::new(client);
    let table = Arc::new(Table::new());
    let caches = Caches::new(store.clone(), &table);
    let source: Arc<dyn ObjectSource> = caches.clone();
    let modes = AuthorizerConfig::from_modes(&config.flags.authorization_mode)?;
    let authorizer = Arc::new(Authorizer::new(modes, source.clone()));
    let schema = schema::Schema::get(&config.emulated_version)
        .context("the emulated version has no table of types")?;
    let services = ServiceAllocator::new(
        store.clone(),
        caches.clone(),
        config.service_cidr,
        config.node_ports,
    );
    let api = Api {
        authenticator: Authenticator::new(config.auth()?, source.clone())?,
        admission: config.admission(source, authorizer.clone())?,
        hooks: config.hooks()?,
        policies: Policies::new(config.has_plugin("ValidatingAdmissionPolicy")),
        aggregation: Aggregation::new(config.proxy_client()?),
        issuer: config.issuer()?,
        node_client: config.node_client()?,
        table: table.clone(),
        schema,
        store: store.clone(),
        caches: caches.clone(),
        authorizer,
        services,
        turns: Turns::default(),
        documents: Documents::default(),
        limits: Limits::new(
            config.flags.max_requests_inflight,
            config.flags.max_mutating_requests_inflight,
            PATIENCE,
        ),
        metrics: Metrics::default(),
        health: Health::default(),
        stopping: CancellationToken::new(),
        config,
    };
    let feed = Feed { store: store.clone(), caches, table };
    let Some(revision) = loaded(&feed, shutdown).await else { return Ok(None) };
    tokio::spawn(feed.follow(background.child_token()));
    while let Err(error) = api.caches.reach(revision).await {
        tracing::warn!(%error, "waiting for the watch cache");
        if shutdown.is_cancelled() {
            return Ok(None);
        }
    }
    if !api.config.compaction.is_zero() {
        tokio::spawn(compaction::run(store, api.config.compaction, background.child_token()));
    }
    Ok(Some(Arc::new(api)))
}

/// The revision that the caches hold, as soon as etcd answers; nothing when the server is to end.
async fn loaded(feed: &Feed, shutdown: &CancellationToken) -> Option<i64> {
    loop {
        let loaded = tokio::select! {
            () = shutdown.cancelled() => return None,
            loaded = feed.load() => loaded,
        };
        match loaded {
            Ok(revision) => return Some(revision),
            Err(error) => tracing::warn!(%error, "waiting for etcd"),
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}
