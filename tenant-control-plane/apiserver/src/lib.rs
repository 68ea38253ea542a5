//! kube-apiserver: the Kubernetes API over etcd.
//!
//! ```text
//!  TLS, HTTP/1.1 and 2  ─► http::connection
//!   └► stack (serve.rs): request info ─► authentication ─► impersonation ─► authorization
//!       ├► discovery, openapi, health, metrics           (paths that name no resource)
//!       ├► aggregation ─► extension API servers          (groups that others serve)
//!       └► registry: decode ─► settle (defaults, strategy, admission, validation)
//!            ├► store  ─► etcd transactions ──┐
//!            └► cache  ◄─ one etcd watch ◄────┘   LIST and WATCH are slices of its bytes
//! ```
//!
//! What it never does: it holds no state that is not in etcd (several replicas serve one cluster),
//! has no handler per kind ([`kinds`] is the one table), and reaches nodes, pods, Services and
//! webhooks only through `streaming`'s dialer.
//!
//! Invariants:
//! - every write compares the revision that it was computed from, in the same transaction;
//! - a response carries a revision that the store has confirmed;
//! - an object is in memory once, serialised; readers share its bytes.
//!
//! A request comes in at [`run::run`] and leaves towards etcd (crate `etcd-api`) or a kubelet
//! (crate `streaming`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aggregation;
pub mod alloc;
pub mod api;
pub mod bootstrap;
pub mod cache;
pub mod clock;
pub mod config;
pub mod convert;
pub mod discovery;
pub mod flags;
pub mod health;
pub mod hooks;
pub mod http;
pub mod jsonpath;
pub mod kinds;
pub mod metrics;
pub mod policies;
pub mod registry;
pub mod run;
pub mod serve;
pub mod store;
pub mod strategy;
pub mod structural;
pub mod table;
pub mod tls;
