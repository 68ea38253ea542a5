//! Opening connections into the cluster's network.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long a connection may take to be opened, the proxy's answer included.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer of an egress proxy to CONNECT, in bytes.
const LONGEST_ANSWER: usize = 8 * 1024;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub type Connection = Box<dyn Io>;

/// How to reach nodes, pods and services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dialer {
    /// TCP from this process's own network.
    #[default]
    Direct,
    /// HTTP CONNECT to a proxy that listens on a Unix socket.
    HttpConnectUnix {
        /// The proxy's socket.
        socket: PathBuf,
    },
    /// HTTP CONNECT to a proxy that listens on TCP, without TLS.
    HttpConnectTcp {
        /// `host:port` of the proxy.
        address: String,
    },
}

impl Dialer {
    /// Connects to a host (name or address, without brackets) and port.
    ///
    /// # Errors
    /// When nobody answers within [`DIAL_TIMEOUT`], or the proxy refuses (its status is in the
    /// text).
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Connection> {
        let dialed = timeout(DIAL_TIMEOUT, self.dial_now(host, port)).await;
        dialed.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("dial tcp {}: i/o timeout", authority(host, port)),
            ))
        })
    }

    async fn dial_now(&self, host: &str, port: u16) -> io::Result<Connection> {
        match self {
            Dialer::Direct => {
                let stream = TcpStream::connect((host, port)).await.map_err(|e| {
                    io::Error::new(e.kind(), format!("dial tcp {}: {e}", authority(host, port)))
                })?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Dialer::HttpConnectUnix { socket } => {
                let stream = UnixStream::connect(socket).await.map_err(|e| {
                    io::Error::new(e.kind(), format!("egress proxy {}: {e}", socket.display()))
                })?;
                connect(stream, host, port).await
            }
            Dialer::HttpConnectTcp { address } => {
                let stream = TcpStream::connect(address).await.map_err(|e| {
                    io::Error::new(e.kind(), format!("egress proxy {address}: {e}"))
                })?;
                stream.set_nodelay(true)?;
                connect(stream, host, port).await
            }
        }
    }
}

/// True for an address that no pod can have (this machine, its link, a cloud's metadata service),
/// and for a name.
pub(crate) fn is_local(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
        }
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
        Err(_) => true,
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
async fn connect<S: Io + 'static>(mut stream: S, host: &str, port: u16) -> io::Result<Connection> {
    let authority = authority(host, port);
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // Byte by byte: what follows the head already belongs to the tunnel.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_ANSWER {
            return Err(io::Error::other("the egress proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let code = line.split(' ').nth(1).unwrap_or_default();
    if !line.starts_with("HTTP/1.") || code != "200" {
        return Err(io::Error::other(format!("egress proxy refused {authority}: {line}")));
    }
    Ok(Box::new(stream))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_tunnel_starts_right_behind_the_proxys_head() {
        let dir = std::env::temp_dir().join(format!("marina-dial-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let listener = UnixListener::bind(&dir).unwrap();
        let proxy = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 256];
            let n = peer.read(&mut head).await.unwrap();
            peer.write_all(b"HTTP/1.1 200 Connection established\r\n\r\nhello").await.unwrap();
            String::from_utf8(head[..n].to_vec()).unwrap()
        });
        let dialer = Dialer::HttpConnectUnix { socket: dir.clone() };
        let mut stream = dialer.dial("fd00::1", 10250).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        assert!(proxy.await.unwrap().starts_with("CONNECT [fd00::1]:10250 HTTP/1.1\r\nHost: ["));
        std::fs::remove_file(dir).unwrap();
    }
}
