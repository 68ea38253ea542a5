//! The portal: what people and their scripts see of Marina.
//!
//! ```text
//!  browser ── session cookie ──► console ─┐
//!                                         ├─► actions ──► marina-db (intent)
//!  script ─── bearer token ────► api ─────┘       views ◄── marina-db (observed)
//! ```
//!
//! It authenticates people and machines, validates what they ask, writes *intent* into the
//! database, and shows *observed* state. Both faces call the same [`actions`], so that a rule holds
//! in both or in neither.
//!
//! It never talks to a tenant's cluster, never runs anything, never writes observed state, and never
//! shows one organization what belongs to another: a foreign id is simply not found.
//!
//! Invariants: every change is one database transaction together with its audit entry; passwords
//! and tokens are stored only as hashes; every error names the field and what is allowed.
//!
//! Next: the provisioner controller reads the intent.

pub mod actions;
pub mod api;
pub mod config;
mod console;
pub mod flags;
pub mod identity;
pub mod input;
pub mod live;
pub mod password;
pub mod problem;
pub mod run;
pub mod setup;
pub mod state;
pub mod view;
