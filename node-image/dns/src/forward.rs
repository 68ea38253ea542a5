//! Questions about the rest of the world, passed on as they came.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one resolver may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The resolvers of the node.
pub struct Forwarder {
    resolvers: Vec<SocketAddr>,
}

impl Forwarder {
    /// Reads `nameserver` lines. A missing file means no resolvers.
    pub fn from_resolv_conf(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let resolvers = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
            .map(|ip| SocketAddr::new(ip, 53))
            .take(3)
            .collect();
        Self { resolvers }
    }

    /// Sends the question to each resolver in turn until one answers, over the transport that it
    /// came by. `None` when none does.
    pub async fn ask(&self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for resolver in &self.resolvers {
            let answer = async {
                if tcp {
                    over_tcp(*resolver, question).await
                } else {
                    over_udp(*resolver, question).await
                }
            };
            match tokio::time::timeout(TIMEOUT, answer).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%resolver, "no answer: {error}"),
                Err(_) => tracing::debug!(%resolver, "no answer in time"),
            }
        }
        None
    }
}

async fn over_udp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The first two bytes are the question's id: anything else is not an answer to it.
        if length >= 12 && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(resolver: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
