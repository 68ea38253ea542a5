//! The API server's way into its VPC: HTTP CONNECT over a Unix socket (upstream's egress
//! selector, KEP-1281, transport `uds`, protocol `HTTPConnect`).
//!
//! Only literal addresses of workers, pods and Services are dialled; names are not resolved.

use std::{
    fs, io,
    net::SocketAddrV4,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{namespace::SocketMaker, range::Ranges};

/// File name of the socket in the cluster's egress directory.
pub const SOCKET: &str = "egress.sock";

const MAX_REQUEST_BYTES: usize = 4096;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Egress {
    task: JoinHandle<()>,
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Egress {
    /// Listens in the directory, for the user `uid` only.
    pub fn start(
        dir: &Path,
        uid: u32,
        ranges: Ranges,
        sockets: SocketMaker,
    ) -> anyhow::Result<Self> {
        let path = dir.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("replacing the egress socket");
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("listening on {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        chown(&path, Some(uid), Some(uid)).context("handing the egress socket over")?;
        Ok(Self { task: tokio::spawn(accept(listener, ranges, sockets)) })
    }

    /// True while it serves.
    pub fn runs(&self) -> bool {
        !self.task.is_finished()
    }
}

async fn accept(listener: UnixListener, ranges: Ranges, sockets: SocketMaker) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(serve(client, ranges, sockets.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "egress proxy cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(mut client: UnixStream, ranges: Ranges, sockets: SocketMaker) -> io::Result<()> {
    let Ok(request) = timeout(REQUEST_TIMEOUT, read_request(&mut client)).await else {
        return Ok(());
    };
    let to = match target(&request?, &ranges) {
        Ok(to) => to,
        Err((status, reason)) => return refuse(&mut client, status, &reason).await,
    };
    let mut server = match timeout(CONNECT_TIMEOUT, sockets.connect(to)).await {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => {
            return refuse(&mut client, "502 Bad Gateway", &format!("{to}: {error}")).await;
        }
        Err(_) => {
            return refuse(&mut client, "504 Gateway Timeout", &format!("{to}: timed out")).await;
        }
    };
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn refuse(client: &mut UnixStream, status: &str, reason: &str) -> io::Result<()> {
    let length = reason.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{reason}\n"
    );
    client.write_all(answer.as_bytes()).await
}

/// Reads up to the empty line, byte by byte at its end, so that nothing after it is consumed.
async fn read_request(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::with_capacity(256);
    while !request.ends_with(b"\r\n\r\n") {
        if request.len() >= MAX_REQUEST_BYTES {
            return Ok(Vec::new());
        }
        request.push(client.read_u8().await?);
    }
    Ok(request)
}

/// What the request wants to reach, if it may.
fn target(request: &[u8], ranges: &Ranges) -> Result<SocketAddrV4, (&'static str, String)> {
    let bad = |why: &str| ("400 Bad Request", why.to_owned());
    let text = std::str::from_utf8(request).map_err(|_| bad("not text"))?;
    let line = text.split("\r\n").next().unwrap_or_default();
    let mut words = line.split(' ');
    let (method, authority) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method != "CONNECT" {
        return Err(("405 Method Not Allowed", "only CONNECT is served".to_owned()));
    }
    let to: SocketAddrV4 =
        authority.parse().map_err(|_| bad("the target must be an IPv4 address and a port"))?;
    if !ranges.may_dial(*to.ip()) {
        return Err(("403 Forbidden", format!("{} is not in this cluster's network", to.ip())));
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_outside_the_cluster_are_refused() {
        let ranges = Ranges {
            vpc: "10.0.0.0/16".parse().unwrap(),
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/16".parse().unwrap(),
        };
        let status = |line: &str| match target(format!("{line}\r\n\r\n").as_bytes(), &ranges) {
            Ok(to) => to.to_string(),
            Err((status, _)) => status[..3].to_owned(),
        };
        assert_eq!(status("CONNECT 10.0.1.5:10250 HTTP/1.1"), "10.0.1.5:10250");
        assert_eq!(status("CONNECT 127.0.0.1:22 HTTP/1.1"), "403");
        assert_eq!(status("CONNECT 10.0.0.1:6443 HTTP/1.1"), "403");
        assert_eq!(status("CONNECT localhost:22 HTTP/1.1"), "400");
        assert_eq!(status("GET / HTTP/1.1"), "405");
    }
}
