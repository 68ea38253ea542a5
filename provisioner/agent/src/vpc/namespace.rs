//! The namespace itself: made and removed with `ip`, entered by one thread.

use std::{
    fs::File,
    io,
    net::{SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::mpsc,
};

use anyhow::{Context, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use provisioner_api::{BRIDGE, netns_name};
use tokio::{process::Command, sync::oneshot};

/// A fixed address: the bridge would otherwise take that of a worker, and change it with them.
const BRIDGE_MAC: &str = "52:54:00:fe:00:01";

/// Makes the namespace, its loopback and its bridge. Idempotent.
pub async fn ensure(cluster: &str) -> anyhow::Result<()> {
    let name = netns_name(cluster);
    if ip(&["-n", &name, "link", "show", "lo"]).await.is_err() {
        // A name without a namespace behind it stays after a crash of `ip netns add`.
        if path(cluster).exists() {
            let _ = ip(&["netns", "del", &name]).await;
        }
        ip(&["netns", "add", &name]).await?;
    }
    ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
    if ip(&["-n", &name, "link", "show", BRIDGE]).await.is_err() {
        ip(&["-n", &name, "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge"]).await?;
    }
    ip(&["-n", &name, "link", "set", BRIDGE, "up"]).await
}

/// Gives the bridge an address (`10.0.0.1/16`). Idempotent.
pub async fn add_address(cluster: &str, address: &str) -> anyhow::Result<()> {
    ip(&["-n", &netns_name(cluster), "addr", "replace", address, "dev", BRIDGE]).await
}

/// Sends what is for a pod network by way of a worker. Idempotent.
pub async fn add_route(cluster: &str, to: &str, via: &str) -> anyhow::Result<()> {
    ip(&["-n", &netns_name(cluster), "route", "replace", to, "via", via]).await
}

/// Removes the namespace. No error when there is none.
pub async fn remove(cluster: &str) -> anyhow::Result<()> {
    if !path(cluster).exists() {
        return Ok(());
    }
    ip(&["netns", "del", &netns_name(cluster)]).await
}

fn path(cluster: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(netns_name(cluster))
}

async fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(args)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("running ip (package iproute2)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", args.join(" "), said.trim());
    }
    Ok(())
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in a namespace and makes sockets there: a socket belongs to the namespace
/// in which it was made, whoever uses it later. The thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct SocketMaker {
    jobs: mpsc::Sender<Job>,
}

impl SocketMaker {
    /// Starts the thread.
    pub async fn enter(cluster: &str) -> anyhow::Result<Self> {
        let path = path(cluster);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, entering) = oneshot::channel();
        std::thread::Builder::new().name(netns_name(cluster)).spawn(move || {
            let result = setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            drop(file);
            let failed = result.is_err();
            if entered.send(result).is_err() || failed {
                return;
            }
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        entering.await.context("namespace thread")?.context("entering the namespace")?;
        Ok(Self { jobs })
    }

    async fn run<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, doing) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = done.send(make());
        });
        self.jobs.send(job).map_err(|_| io::Error::other("the namespace's thread has ended"))?;
        doing.await.map_err(io::Error::other)?
    }

    /// Connects to an address in the namespace.
    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<tokio::net::TcpStream> {
        let fd: OwnedFd = self
            .run(|| {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                Ok(socket(AddressFamily::Inet, SockType::Stream, flags, None)?)
            })
            .await?;
        let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
        socket.connect(to.into()).await
    }

    /// Listens on an address in the namespace.
    pub async fn listen(&self, on: SocketAddrV4) -> io::Result<tokio::net::TcpListener> {
        let listener = self
            .run(move || {
                // std sets SO_REUSEADDR, so that a restarted agent can listen at once.
                let listener = TcpListener::bind(on)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .await?;
        tokio::net::TcpListener::from_std(listener)
    }
}
