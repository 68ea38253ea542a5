//! Caches, sockets, health.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use component::{Informer, Informers, ObjectKey};
use hickory_server::Server;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::flags::Flags;
use crate::forward::Forwarder;
use crate::handler::Handler;
use crate::zone::{Objects, Zone};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Idle TCP connections end after this.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `shutdown`.
///
/// # Errors
/// When there are no credentials or an address is taken.
pub async fn run(flags: Flags, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ready = Arc::new(AtomicBool::new(false));
    serve_status(flags.health, Arc::new(AtomicBool::new(true))).await?;
    serve_status(flags.ready, ready.clone()).await?;
    let client = match &flags.kubeconfig {
        Some(path) => component::client::from_kubeconfig(path, "cluster-dns").await?,
        None => {
            let config = kube::Config::incluster()
                .context("no ServiceAccount in this pod: give --kubeconfig")?;
            component::client::from_config(config, "cluster-dns")?
        }
    };
    let informers = Informers::new(client);
    let cache = Cache { services: informers.of(), slices: informers.of() };
    cache.services.add_index("ip", |service: &Service| {
        service.spec.iter().filter_map(|spec| spec.cluster_ip.clone()).collect()
    });
    cache.slices.add_index("service", |slice: &EndpointSlice| {
        let meta = &slice.metadata;
        let name = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        name.map(|name| index_value(meta.namespace.as_deref().unwrap_or(""), name))
            .into_iter()
            .collect()
    });
    tokio::select! {
        () = informers.start(shutdown.clone()) => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let zone = Zone::new(&flags.domain, cache);
    let handler = Handler::new(zone, Forwarder::from_resolv_conf(&flags.resolv_conf));
    let mut server = Server::new(handler);
    let listen = flags.listen;
    let udp = UdpSocket::bind(listen).await.with_context(|| format!("--listen {listen}, UDP"))?;
    let tcp = TcpListener::bind(listen).await.with_context(|| format!("--listen {listen}, TCP"))?;
    server.register_socket(udp);
    server.register_listener(tcp, TCP_TIMEOUT, 1024);
    ready.store(true, Ordering::Relaxed);
    tracing::info!(%listen, domain = flags.domain, "answering");
    shutdown.cancelled().await;
    server.shutdown_gracefully().await.context("the DNS server did not stop cleanly")
}

struct Cache {
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
}

impl Objects for Cache {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, name: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index("service", &index_value(namespace, name))
    }

    fn service_by_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
        self.services.by_index("ip", &ip.to_string()).into_iter().next()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        !self.services.list_namespace(namespace).is_empty()
    }
}

fn index_value(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Answers every request with 200 while `ok`, else with 503.
async fn serve_status(address: SocketAddr, ok: Arc<AtomicBool>) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let answer: &[u8] = match ok.load(Ordering::Relaxed) {
                true => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
                false => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            };
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let read = tokio::time::timeout(TCP_TIMEOUT, stream.read(&mut request)).await;
                if matches!(read, Ok(Ok(length)) if length > 0) {
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    Ok(())
}
