//! Copies bytes both ways between two connections.

use std::io;

use tokio::{io::copy_bidirectional, net::TcpStream};

/// Copies until both sides have closed. A side that closes its sending half has that passed on
/// (half-close), so that a response after the last request byte still arrives.
pub async fn relay(mut a: TcpStream, mut b: TcpStream) -> io::Result<(u64, u64)> {
    a.set_nodelay(true)?;
    b.set_nodelay(true)?;
    copy_bidirectional(&mut a, &mut b).await
}
