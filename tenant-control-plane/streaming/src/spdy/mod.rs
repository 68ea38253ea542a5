//! SPDY/3.1 framing: the protocol that kubelets and container runtimes speak on upgraded
//! connections.
//!
//! Frames only: what streams mean is for the caller. There is no flow control, because no
//! Kubernetes peer implements SPDY's (WINDOW_UPDATE frames are read and ignored); the socket's
//! own back-pressure holds both sides. Source: SPDY Protocol, Draft 3.1.

mod codec;
mod headers;

pub use codec::{Frame, Reader, Writer};
pub use headers::Headers;

/// Largest payload of a frame that is accepted, in bytes. Peers send at most 64 KiB.
pub const LARGEST_FRAME: usize = 1 << 20;
/// Largest header block, decompressed, in bytes.
pub const LARGEST_HEADERS: usize = 32 * 1024;
/// Most headers in one block.
pub const MOST_HEADERS: usize = 64;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer breaks the protocol, or a limit.
    #[error("SPDY: {0}")]
    Protocol(&'static str),
}
