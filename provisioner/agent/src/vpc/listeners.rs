//! Sockets inside the VPC that lead to API servers on the host's loopback: how kubelets and pods
//! reach the control plane. Nothing else of the host can be reached from inside.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::Context;
use provisioner_api::pb;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::namespace::{SocketMaker, add_address};

/// The listeners of a cluster.
#[derive(Debug, Default)]
pub struct Listeners {
    running: BTreeMap<SocketAddrV4, JoinHandle<()>>,
}

impl Listeners {
    /// Starts what is missing and ends what is not wanted any more.
    pub async fn converge(
        &mut self,
        cluster: &str,
        prefix_len: u8,
        wanted: &[pb::ApiListener],
        sockets: &SocketMaker,
    ) -> anyhow::Result<()> {
        let mut addresses = Vec::new();
        for listener in wanted {
            let ip: Ipv4Addr = listener.address.parse().context("VPC listener's address")?;
            let port = u16::try_from(listener.port).context("VPC listener's port")?;
            addresses.push(SocketAddrV4::new(ip, port));
        }
        self.running.retain(|address, task| {
            let keep = addresses.contains(address) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for address in addresses {
            if self.running.contains_key(&address) {
                continue;
            }
            add_address(cluster, &format!("{}/{prefix_len}", address.ip())).await?;
            let listener = sockets
                .listen(address)
                .await
                .with_context(|| format!("listening on {address} in the VPC"))?;
            self.running.insert(address, tokio::spawn(forward(listener, address.port())));
        }
        Ok(())
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in self.running.values() {
            task.abort();
        }
    }
}

async fn forward(listener: TcpListener, port: u16) {
    // Connections end with the listener: a removed cluster keeps none.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((inside, _)) => {
                    connections.spawn(async move {
                        let outside = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                        provisioner_gateway::relay(inside, outside).await
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "VPC listener cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}
