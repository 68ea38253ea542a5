//! The controller: reads what is wanted and seen, plans, executes, tells the agents.
//!
//! ```text
//!            ┌──────────── doorbell, agents' reports, timer ───────────┐
//!            ▼                                                         │
//!  read database ─► sight (reports → rows) ─► plan ─► execute ─► desired state per host ─► agents
//! ```
//!
//! One pass reads everything and takes no argument; what woke it up does not matter. Everything
//! that it decides is in the database before an agent hears of it, so a controller can be killed
//! at any moment, and several share the work by a lease in the database.
//!
//! **Invariants**
//! - A host's desired state is a function of the database alone, numbered by the doorbell.
//! - Rows of what ran on a host are removed only when that host, in answer to a desired state
//!   without it, reports that it is gone.
//! - Private keys are in the database only sealed, and leave it only to the agent that needs them.
//!
//! **Never**: talks to a tenant's API (agents do), makes decisions (`provisioner-plan` does), or
//! changes intent (the portal does).
//!
//! **Next**: `provisioner-agent` converges its host.

mod agents;
pub mod config;
mod desired;
mod execute;
pub mod flags;
mod material;
mod member_spec;
mod planner_view;
mod region;
pub mod run;
mod sight;
mod user_data;

pub use config::ControllerConfig;
pub use flags::ControllerFlags;
pub use run::run;
