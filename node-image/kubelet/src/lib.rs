//! The kubelet: runs the pods that are bound to this node, and nothing else.
//!
//! ```text
//!            API server                                containerd (CRI, Unix socket)
//!   pods of this node │ ▲ status, events,                     ▲ sandboxes, containers,
//!                     ▼ │ node, lease                         │ images, streams
//!   pods::manager ─► one pods::worker per pod ────────────────┤
//!        ▲               │ plan (pure) → act                  │
//!        │               ├─► volumes (files under /var/lib/kubelet/pods/<uid>)
//!   runtime::watch ──────┘   probes, status
//!   server (:10250): logs, exec, attach, port-forward, stats ─┘
//! ```
//!
//! - [`spec`]: what a pod asks for, as pure functions of its spec.
//! - [`pods`]: what to do next for a pod ([`pods::plan`], pure) and the workers that do it.
//! - [`runtime`]: what the container runtime has; [`volumes`], [`probes`], [`status`]: as named.
//! - [`node`]: registration, status and lease of the Node; [`certs`]: its identity.
//! - [`server`]: what the API server asks of the node.
//!
//! Invariants: every decision is made from the pod's spec, what it was given of the node
//! ([`node::allocations`], on disk), the runtime's state and the clock, so a kubelet that is killed
//! and started again continues where the other left off and touches no running container; a pod is removed only after the API server has been asked for its pods; a
//! pod's object is deleted only after everything of it has stopped; no tree is removed while
//! something is mounted in it.
//!
//! It never schedules, never writes a pod's spec, never talks to etcd or to other nodes. The
//! request goes next to containerd, and from there to runc.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod certs;
pub mod config;
pub mod flags;
pub mod housekeeping;
pub mod metrics;
pub mod node;
pub mod pods;
pub mod probes;
pub mod run;
pub mod runtime;
pub mod server;
pub mod spec;
pub mod status;
pub mod volumes;

/// The version that the node reports.
pub const VERSION: &str = "v1.35.0";
