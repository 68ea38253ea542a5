//! The host agent: makes one host be what the controller desires.
//!
//! ```text
//! controller ──Apply──► desired state (on disk) ──► one task per cluster
//!                                                    ├ members: launcher, supervisor, health, log
//!                                                    ├ VPC: namespace, listeners, egress proxy
//!                                                    └ tenant's API: add-ons, tokens, Nodes
//!                                              ──► one task per worker driver: Ensure, Delete, List
//!                                              ──► gateway's routes
//!            ◄─Observe─ board: every part writes what it sees
//! ```
//!
//! **Invariants**
//! - The desired state is durable before it is acknowledged; without a controller the agent works
//!   from the last one. Before it was ever given one it removes nothing.
//! - A member runs at most once: the kernel's lock on its directory says so ([`process`]).
//! - Members, workers and drivers outlive the agent; the next agent adopts them.
//! - What is not desired is removed completely, a cluster's directory last, so that an interrupted
//!   removal goes on. What the report does not list is gone.
//! - API servers reach only workers, pods and Services of their own VPC ([`vpc::egress`]); from
//!   inside a VPC only the API servers' ports lead out ([`vpc::listeners`]).
//!
//! **Never**: decides what should run, restarts a worker (node groups replace them), touches what
//! it did not make, or logs keys.
//!
//! **Next**: `kubectl` enters by the gateway; kubelets enter by the VPC's listeners.

pub mod board;
pub mod cgroup;
pub mod cluster;
pub mod config;
pub mod desired;
pub mod durable;
pub mod flags;
pub mod host;
mod http1;
pub mod launch;
pub mod member;
pub mod process;
pub mod run;
pub mod server;
pub mod tenant;
pub mod vpc;
pub mod worker;

pub use config::AgentConfig;
pub use flags::AgentFlags;
pub use launch::launch;
pub use run::run;
