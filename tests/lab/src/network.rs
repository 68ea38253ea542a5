//! The lab's network namespace, and the one way into it from outside: a relay from a loopback port
//! to the API server.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::Context;
use provisioner_agent::vpc::namespace::{self, SocketMaker};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::control::{ADDRESS, PORT};

/// A namespace with a bridge. Removed when dropped.
pub struct Network {
    lab: String,
    /// Port on 127.0.0.1 that leads to the API server.
    pub port: u16,
    inside: SocketMaker,
    runtime: Runtime,
}

impl Network {
    /// Makes the namespace of the lab and starts the relay.
    ///
    /// # Errors
    /// `ip` fails, or no port is free.
    pub fn start(lab: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting a runtime")?;
        let (port, inside) = runtime.block_on(async {
            namespace::ensure(lab).await?;
            namespace::add_address(lab, &format!("{ADDRESS}/16")).await?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            let inside = SocketMaker::enter(lab).await?;
            tokio::spawn(relay(listener, inside.clone()));
            anyhow::Ok((port, inside))
        })?;
        Ok(Self { lab: lab.to_owned(), port, inside, runtime })
    }

    /// Sends what is for a node's pods by way of that node.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn add_route(&self, pods: &str, node: &str) -> anyhow::Result<()> {
        self.runtime.block_on(namespace::add_route(&self.lab, pods, node))
    }

    /// True when something listens there, inside.
    pub fn answers(&self, (address, port): (Ipv4Addr, u16)) -> bool {
        let to = SocketAddrV4::new(address, port);
        self.runtime.block_on(async { self.inside.connect(to).await.is_ok() })
    }

    /// The namespace as a file.
    pub fn path(&self) -> PathBuf {
        path(&self.lab)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(namespace::remove(&self.lab));
    }
}

/// Removes the namespace that an earlier lab of this name left.
///
/// # Errors
/// `ip` fails.
pub fn remove(lab: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(namespace::remove(lab))
}

fn path(lab: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name(lab))
}

/// Name of the lab's namespace.
pub fn name(lab: &str) -> String {
    format!("marina-{lab}")
}

async fn relay(listener: TcpListener, inside: SocketMaker) {
    while let Ok((mut client, _)) = listener.accept().await {
        let inside = inside.clone();
        tokio::spawn(async move {
            let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
            let mut server = inside.connect(to).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
