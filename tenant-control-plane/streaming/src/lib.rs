//! From the API server to a node, a pod or a service, and back: log streams, `exec`, `attach`,
//! `port-forward`, the generic proxy (to extension API servers too), and calls of webhooks
//! ([`hook`]).
//!
//! ```text
//! kubectl ── WebSocket v5/v4.channel.k8s.io ──► translate ──► SPDY/3.1 ──┐
//!         ── WebSocket SPDY/3.1+portforward ──► tunnel ─────► raw SPDY ──┤
//!         ── SPDY/3.1 (older clients) ────────► bytes as they are ───────┼─► Dialer ─► kubelet
//!         ── plain HTTP (logs, proxies) ──────► streamed, flushed ───────┘   (direct, or HTTP
//!                                                                             CONNECT egress)
//! ```
//!
//! The API server authenticates, authorizes, finds the node's address and the path there, and
//! calls [`node::forward`]; this crate never decides who may connect where. It never follows a
//! redirect and never hands the client's credentials on.
//!
//! Invariants:
//! - nothing is buffered without a bound: one frame per direction, and back-pressure on both
//!   sockets does the rest;
//! - SPDY and WebSocket frames, header blocks and stream counts have limits, and what exceeds
//!   them ends the connection;
//! - a connection's two halves end together.

pub mod body;
mod channels;
pub mod dial;
pub mod egress;
mod fetch;
pub mod hook;
pub mod kubelet;
mod links;
mod log;
pub mod node;
mod proxy;
pub mod spdy;
pub mod tls;
mod translate;
mod tunnel;
pub mod websocket;

pub use body::{Body, BoxError};
pub use dial::Dialer;
pub use fetch::fetch;
pub use hook::HookClient;
pub use node::{Mode, NodeClient, NodeTarget, forward};
