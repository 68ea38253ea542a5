//! What every Kubernetes component does the same way: logging, the API client, shared caches,
//! work queues, leader election, events, health and shutdown.
//!
//! A component's `main` reads its flags, calls [`logging::init`], builds a [`kube::Client`] with
//! [`client::from_kubeconfig`], asks [`informer::Informers`] for the kinds that it wants to see,
//! and runs its loops until [`shutdown::on_signals`] fires.
//!
//! ```text
//!  API server ──list+watch──► Informer<K> ──change──► WorkQueue ──key──► worker: reads informers,
//!       ▲                        ▲                                           writes through Api<K>
//!       └────────────────────────┴── observe(what the API answered) ─────────────┘
//! ```
//!
//! It never decides anything about Kubernetes objects, and it never talks to the store.
//!
//! Invariants: one informer per kind and process; an informer never goes back to an older resource
//! version of an object; a key is never handled by two workers at once; a component that loses its
//! lease stops before another may start.

pub mod client;
pub mod events;
pub mod informer;
pub mod leader;
pub mod logging;
pub mod metrics;
pub mod placement;
pub mod selector;
pub mod serving;
pub mod shutdown;
pub mod workqueue;

pub use events::{EventType, Recorder};
pub use informer::{Change, Informer, Informers, Object, ObjectKey};
pub use workqueue::WorkQueue;
