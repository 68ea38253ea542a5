//! Accepts, peeks, dials, copies.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    hello::{self, Hello},
    relay::relay,
    routes::{Routes, Target},
};

/// What one gateway allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a client may take to send its hello.
    pub hello_timeout: Duration,
    /// How long an API server may take to accept.
    pub connect_timeout: Duration,
    /// Connections that have not sent their hello yet.
    pub max_unrouted: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            max_unrouted: 4096,
        }
    }
}

/// Serves until the future is dropped. Connections that it has routed go on without it.
pub async fn serve(listener: TcpListener, routes: Routes, limits: Limits) {
    let unrouted = Arc::new(Semaphore::new(limits.max_unrouted));
    loop {
        let (client, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, usually: waiting lets connections end.
                tracing::warn!(%error, "gateway cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // At the limit the connection is dropped: its client sees a reset and may try again.
        let Ok(slot) = Arc::clone(&unrouted).try_acquire_owned() else { continue };
        let routes = routes.clone();
        tokio::spawn(async move {
            match route(client, &routes, limits).await {
                Ok(Some(routed)) => {
                    drop(slot);
                    routed.run(peer).await;
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%peer, %error, "gateway connection ended early"),
            }
        });
    }
}

/// A connection that has found its API server.
struct Routed {
    client: TcpStream,
    server: TcpStream,
    hello: Vec<u8>,
    name: String,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Routed {
    async fn run(mut self, peer: SocketAddr) {
        let copied = match self.server.write_all(&self.hello).await {
            Ok(()) => relay(self.client, self.server).await,
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            tracing::debug!(%peer, server_name = self.name, %error, "gateway connection broke");
        }
    }
}

async fn route(
    mut client: TcpStream,
    routes: &Routes,
    limits: Limits,
) -> io::Result<Option<Routed>> {
    let peeked = timeout(limits.hello_timeout, read_hello(&mut client)).await;
    let Ok(peeked) = peeked else { return Ok(None) };
    let (hello, parsed) = peeked?;
    let name = match parsed {
        Hello::Name(name) => name,
        Hello::NoName => return refuse(client, hello::ALERT_UNRECOGNIZED_NAME).await,
        Hello::Malformed | Hello::Incomplete => {
            return refuse(client, hello::ALERT_DECODE_ERROR).await;
        }
    };
    let Some(target) = routes.find(&name) else {
        return refuse(client, hello::ALERT_UNRECOGNIZED_NAME).await;
    };
    let Some(slot) = target.slot() else {
        tracing::warn!(server_name = name, "cluster is at its limit of connections");
        return Ok(None);
    };
    match dial(&target, limits.connect_timeout).await {
        Some(server) => Ok(Some(Routed { client, server, hello, name, _slot: slot })),
        None => {
            tracing::warn!(server_name = name, "no API server accepts connections");
            Ok(None)
        }
    }
}

/// Reads until the hello is complete or cannot be one.
async fn read_hello(client: &mut TcpStream) -> io::Result<(Vec<u8>, Hello)> {
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let read = client.read_buf(&mut bytes).await?;
        let parsed = hello::parse(&bytes);
        let full = bytes.len() > hello::MAX_HELLO_BYTES;
        if parsed != Hello::Incomplete || read == 0 || full {
            return Ok((bytes, parsed));
        }
    }
}

async fn refuse(mut client: TcpStream, alert: [u8; 7]) -> io::Result<Option<Routed>> {
    client.write_all(&alert).await?;
    client.shutdown().await?;
    Ok(None)
}

async fn dial(target: &Target, connect_timeout: Duration) -> Option<TcpStream> {
    for replica in target.order() {
        let dialled = timeout(connect_timeout, TcpStream::connect(replica)).await;
        let stream = dialled.ok().and_then(Result::ok);
        target.mark(replica, stream.is_some());
        if stream.is_some() {
            return stream;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hello::tests::{hello, record, sni},
        routes::Route,
    };

    async fn gateway(routes: &Routes, limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, routes.clone(), limits));
        addr
    }

    /// An API server that says back what it got, after the client has closed its half.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).await.unwrap();
                    stream.write_all(&got).await.unwrap();
                });
            }
        });
        addr
    }

    async fn closed_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    async fn send(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        read.expect("answered in time").unwrap();
        answer
    }

    #[tokio::test]
    async fn a_known_name_reaches_a_replica_that_lives() {
        let routes = Routes::default();
        let replicas = vec![closed_port().await, echo().await];
        routes.set(vec![Route { server_name: "a.local".into(), replicas, max_connections: 8 }]);
        let addr = gateway(&routes, Limits::default()).await;
        let bytes = [record(&hello(&sni("A.local"))), b"payload".to_vec()].concat();
        for _ in 0..4 {
            assert_eq!(send(addr, &bytes).await, bytes);
        }
    }

    #[tokio::test]
    async fn an_unknown_name_is_refused_with_an_alert() {
        let addr = gateway(&Routes::default(), Limits::default()).await;
        let unknown = record(&hello(&sni("b.local")));
        assert_eq!(send(addr, &unknown).await, hello::ALERT_UNRECOGNIZED_NAME);
        assert_eq!(send(addr, b"GET / HTTP/1.1\r\n\r\n").await, hello::ALERT_DECODE_ERROR);
    }

    #[tokio::test]
    async fn a_cluster_at_its_limit_gets_no_more_and_a_silent_client_is_dropped() {
        let routes = Routes::default();
        let route =
            Route { server_name: "a".into(), replicas: vec![echo().await], max_connections: 1 };
        routes.set(vec![route]);
        let limits = Limits { hello_timeout: Duration::from_millis(50), ..Limits::default() };
        let addr = gateway(&routes, limits).await;
        let bytes = record(&hello(&sni("a")));
        let mut first = TcpStream::connect(addr).await.unwrap();
        first.write_all(&bytes).await.unwrap();
        let target = routes.find("a").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while target.slot().is_some() {
            assert!(std::time::Instant::now() < deadline, "the first connection takes the slot");
            tokio::task::yield_now().await;
        }
        assert_eq!(send(addr, &bytes).await, b"", "no slot, no answer");
        first.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        first.read_to_end(&mut echoed).await.unwrap();
        assert_eq!(echoed, bytes);

        let mut silent = TcpStream::connect(addr).await.unwrap();
        let mut nothing = Vec::new();
        silent.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty());
    }
}
