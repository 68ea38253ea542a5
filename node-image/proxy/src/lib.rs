//! kube-proxy: makes Service addresses work on this node, with nftables.
//!
//! It watches Services and EndpointSlices, computes for each Service what its ports lead to
//! ([`model`]), and writes the difference to the kernel as one nftables transaction ([`nft`]). The
//! cost of a change is the size of the change; the whole table is written at the start, after an
//! error, and once an hour.
//!
//! It never touches tables other than its own (`kube-proxy`), never changes an API object, and
//! needs nothing but the two watches: when it is gone, the rules stay and traffic flows on.
//!
//! Invariant: the kernel's table equals the last state that `nft` accepted.
//! Next on a packet's way: the pod's veth, put there by the CNI plugins.

pub mod config;
pub mod flags;
pub mod model;
pub mod nft;
pub mod run;
