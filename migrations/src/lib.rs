//! Marina's database: the schema, and the only crate that speaks SQL.
//!
//! ```text
//!  portal ── writes intent ──►┌──────────┐◄── reads intent ─── provisioner controller
//!         ◄─ reads observed ──│ marina-db│◄── writes observed ─
//!                             └──────────┘
//! ```
//!
//! **How it is used.** [`Db::read`] opens a consistent snapshot ([`Reader`]); [`Db::write`] opens
//! the one write transaction ([`Writer`], which can also read) and [`Writer::commit`] makes it
//! durable. Every noun has one file with its types, its reads (methods of `Reader`) and its writes
//! (methods of `Writer`). A dropped `Writer` changes nothing.
//!
//! **Doorbell.** Each committed write transaction adds one to a counter. Readers poll that
//! counter ([`Db::doorbell`], [`Db::wait_for_bell`]) instead of tables. A doorbell carries no
//! information: whoever wakes up reads the state.
//!
//! **Invariants.** Intent (what a customer asked for, with a generation) and observed state (what
//! the controller saw, with the generation that it has acted on) are different types and
//! different tables; only the portal writes the first, only the controller the second. Secrets
//! are stored sealed ([`seal::Sealer`]); tokens are stored as hashes. Times are Unix milliseconds,
//! ids are text. Nothing here relies on what PostgreSQL cannot do.
//!
//! **Never**: this crate decides nothing (no planning, no permissions) and makes no network call.
//!
//! **Next**: intent goes to `provisioner-controller`, which plans and writes observed state back.

pub mod audit;
pub mod clusters;
pub mod db;
pub mod error;
pub mod events;
pub mod hosts;
pub mod idempotency;
pub mod ids;
pub mod leases;
pub mod members;
pub mod node_groups;
pub mod nodes;
pub mod observed;
pub mod organizations;
pub mod seal;
pub mod secrets;
pub mod sessions;
mod sql_types;
pub mod tokens;
pub mod users;
pub mod versions;

pub use db::{Db, Reader, Writer, now_ms};
pub use error::{DbError, Result};
pub use ids::{
    ClusterId, HostId, MemberId, NodeGroupId, NodeId, OrgId, SessionId, TokenId, UserId,
};
