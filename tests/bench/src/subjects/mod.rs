//! What can be measured. To add a subject, see the crate's documentation; its line goes here.

use crate::rounds::Entry;

mod api;
pub mod apiserver;
pub mod control_plane;
pub mod etcd;
pub mod kubelet;
pub mod proxy;
pub mod scheduler;

/// Every subject.
pub const ALL: &[Entry] = &[
    etcd::ENTRY,
    apiserver::ENTRY,
    scheduler::ENTRY,
    kubelet::ENTRY,
    proxy::ENTRY,
    control_plane::ENTRY,
];
