//! The one public port for all tenant API servers: routes TLS connections by server name.
//!
//! ```text
//! client ──TLS──► gateway: reads the hello's server name, holds no key
//!                   │ unknown name, or no name: TLS alert, closed
//!                   ▼
//!                 a healthy API server of that cluster (loopback), bytes copied both ways
//! ```
//!
//! **Never**: terminates TLS, buffers more than a hello, or waits longer than its time-outs for a
//! client that says nothing.
//!
//! **Invariants**: a connection belongs to exactly one cluster, named by the first hello; a
//! cluster never has more connections than its limit; a replica that refused a connection is
//! tried last until it accepts one again.
//!
//! **Next**: kube-apiserver authenticates the client inside the TLS session.

pub mod hello;
mod relay;
mod routes;
mod server;

pub use relay::relay;
pub use routes::{Route, Routes};
pub use server::{Limits, serve};
