//! The lives of pods: one worker per pod, each level-triggered.
//!
//! ```text
//!  API watch ─┐                                   ┌─► runtime (CRI)
//!  runtime ───┼─ring─► worker: observe ► plan ► act ├─► volumes on disk
//!  probes ────┘            ▲                │      └─► status, events (API)
//!                          └── until idle ──┘
//! ```
//!
//! A ring carries nothing. A worker that hears one looks at the pod in the API and in the
//! runtime, and does what [`plan::plan`] says. Workers hold no state that matters: a kubelet
//! that is killed and started again finds all of it in the runtime, in the API and, for what pods
//! were given of the node, on disk.

mod acting;
mod admission;
pub mod backoff;
pub mod cleanup;
mod ending;
pub mod environment;
pub mod hooks;
pub mod manager;
pub mod mounts;
pub mod plan;
pub mod resizing;
pub mod room;
pub mod sandbox;
pub mod start;
pub mod stop;
pub mod words;
pub mod worker;
