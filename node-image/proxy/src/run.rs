//! Watches, and writes what changed.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use component::{Informer, Informers, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::model::{SERVICE_NAME_LABEL, State, ports_of};
use crate::nft::{self, Table};

/// Pause after `nft` refused a transaction.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `shutdown`. The rules stay in the kernel.
///
/// # Errors
/// When the kubeconfig cannot be used or the health check address is taken.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client = component::client::from_kubeconfig(&config.kubeconfig, "kube-proxy").await?;
    let healthy = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(config.healthz)
        .await
        .with_context(|| format!("--healthz-bind-address {}", config.healthz))?;
    tokio::spawn(serve_health(listener, healthy.clone()));

    let informers = Informers::new(client);
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    slices.add_index("service", |slice| service_of(slice).into_iter().map(index_value).collect());
    let dirty = Arc::new(Dirty::default());
    watch(&services, &slices, &dirty);
    tokio::select! {
        () = informers.start(shutdown.clone()) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    Syncer { node: config.node.clone(), services, slices, written: None }
        .run(&config, &dirty, &healthy, shutdown)
        .await;
    Ok(())
}

/// Services to look at again.
#[derive(Default)]
struct Dirty {
    keys: Mutex<BTreeSet<ObjectKey>>,
    doorbell: Notify,
}

impl Dirty {
    fn mark(&self, key: ObjectKey) {
        self.keys.lock().expect("no code panics while it holds this lock").insert(key);
        self.doorbell.notify_one();
    }

    fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut *self.keys.lock().expect("no code panics while it holds this lock"))
    }
}

fn watch(services: &Informer<Service>, slices: &Informer<EndpointSlice>, dirty: &Arc<Dirty>) {
    let bell = dirty.clone();
    services.on_change(move |change| bell.mark(ObjectKey::of(change.latest().as_ref())));
    let bell = dirty.clone();
    slices.on_change(move |change| {
        for slice in change.old.iter().chain(change.new.iter()) {
            if let Some(key) = service_of(slice) {
                bell.mark(key);
            }
        }
    });
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone()?, name.clone()))
}

fn index_value(key: ObjectKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

struct Syncer {
    node: String,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    /// What the kernel has; `None` when that is unknown.
    written: Option<Table>,
}

impl Syncer {
    async fn run(
        mut self,
        config: &Config,
        dirty: &Dirty,
        healthy: &AtomicBool,
        shutdown: CancellationToken,
    ) {
        let mut next_full = Instant::now();
        loop {
            if Instant::now() >= next_full {
                self.written = None;
                next_full = Instant::now() + config.sync_period;
            }
            let result = self.sync(dirty).await;
            healthy.store(result.is_ok(), Ordering::Relaxed);
            let pause = match result {
                Ok(()) => config.min_sync_period,
                Err(error) => {
                    tracing::error!("the rules could not be written, trying again: {error:#}");
                    self.written = None;
                    next_full = Instant::now();
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            if self.written.is_some() {
                tokio::select! {
                    () = dirty.doorbell.notified() => {}
                    () = tokio::time::sleep_until(next_full) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }

    async fn sync(&mut self, dirty: &Dirty) -> anyhow::Result<()> {
        let keys = dirty.take();
        let Some(table) = &mut self.written else {
            let state: State = self.services.list().iter().flat_map(|s| self.ports(s)).collect();
            let (table, text) = nft::full(state);
            write(&text).await?;
            tracing::info!(service_ports = table.len(), "wrote all rules");
            self.written = Some(table);
            return Ok(());
        };
        let after: State = keys
            .iter()
            .filter_map(|key| self.services.get(key))
            .flat_map(|service| ports(&service, &self.slices, &self.node))
            .collect();
        let text = table.change(&keys, after);
        if !text.is_empty() {
            write(&text).await?;
            tracing::debug!(services = keys.len(), bytes = text.len(), "wrote changed rules");
        }
        Ok(())
    }

    fn ports(&self, service: &Service) -> State {
        ports(service, &self.slices, &self.node)
    }
}

fn ports(service: &Service, slices: &Informer<EndpointSlice>, node: &str) -> State {
    let key = ObjectKey::of(service);
    let found = slices.by_index("service", &index_value(key));
    let found: Vec<&EndpointSlice> = found.iter().map(AsRef::as_ref).collect();
    ports_of(service, &found, node)
}

/// One transaction: all of it, or nothing.
async fn write(text: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("nft cannot be started: is nftables installed?")?;
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    stdin.write_all(text.as_bytes()).await.context("nft stopped reading")?;
    drop(stdin);
    let output = child.wait_with_output().await.context("lost nft")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("nft refused the rules: {}", error.lines().take(6).collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

/// `/healthz` and `/livez`, plain HTTP as upstream: 200 when the last write succeeded, else 503.
async fn serve_health(listener: TcpListener, healthy: Arc<AtomicBool>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let healthy = healthy.load(Ordering::Relaxed);
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut request));
            let Ok(Ok(length)) = read.await else { return };
            let known = [&b"GET /healthz"[..], b"GET /livez", b"GET /readyz"];
            let (status, body) = match known.iter().any(|p| request[..length].starts_with(p)) {
                false => ("404 Not Found", "not found\n"),
                true if healthy => ("200 OK", "ok\n"),
                true => ("503 Service Unavailable", "the rules could not be written\n"),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
