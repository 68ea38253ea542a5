//! kube-controller-manager: the control loops that turn what users ask for into objects that other
//! components act on.
//!
//! ```text
//!  informers (component) ──► work queue ──key──► controller: plan(object, listers) -> changes
//!        ▲                                              │ create, update, patch, delete
//!        └──────────────────  API server ◄──────────────┘
//! ```
//!
//! A controller is one file (or directory) below [`controllers`] and one line in
//! [`controllers::CONTROLLERS`]. Decisions are pure functions with tests beside them; the shell
//! around each reads the shared caches and writes through the API.
//!
//! It never starts a container, never picks a node, and never talks to the store. What it writes
//! goes on to the scheduler (pods without a node), the kubelet (pods with one) and kube-proxy
//! (EndpointSlices).
//!
//! Each controller acts as a ServiceAccount of its own ([`identity`]), the caches as the manager.
//!
//! Invariants: only the leader writes; no controller writes before it has its account's token; every controller can be killed at any moment and continues
//! from the API's state alone; a key is handled by one worker at a time.

pub mod config;
pub mod context;
pub mod controllers;
pub mod discovery;
pub mod flags;
pub mod identity;
pub mod metrics;
pub mod owners;
pub mod pods;
pub mod revisions;
pub mod run;
pub mod writes;
