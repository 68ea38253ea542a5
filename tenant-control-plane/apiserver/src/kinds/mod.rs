//! The one table of kinds. Storage, watch cache, discovery, OpenAPI, printing and the registry
//! read its rows; there is no handler per kind.
//!
//! **To add a kind**: open the file of its API group (or copy `scheduling.rs`, the shortest one,
//! and add it to [`built_in`]), duplicate the line of a kind with the same scope, and change the
//! names. A kind with rules of its own gets `.strategy(...)` from `crate::strategy`.
//! A custom resource definition becomes a row at run time in `custom.rs`.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
pub mod custom;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod review;
mod row;
mod scheduling;
mod storage;
pub mod table;

pub use row::{Action, Column, Field, Name, Review, Row, Subresource, Verbs};
pub use table::Table;

use self::row::Rows;

/// Every built-in kind. Groups appear in discovery in this order.
pub fn built_in() -> Vec<Row> {
    let groups: &[fn() -> Rows] = &[
        core::rows,
        apiregistration::rows,
        apps::rows,
        events::rows,
        review::rows,
        autoscaling::rows,
        batch::rows,
        certificates::rows,
        networking::rows,
        policy::rows,
        rbac::rows,
        storage::rows,
        admissionregistration::rows,
        apiextensions::rows,
        scheduling::rows,
        coordination::rows,
        node::rows,
        discovery::rows,
        resource::rows,
        flowcontrol::rows,
    ];
    groups.iter().flat_map(|rows| rows().0).collect()
}
