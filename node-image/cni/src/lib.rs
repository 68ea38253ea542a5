//! node-agent: connects the pods of this node with those of the others.
//!
//! It waits until its Node has a pod CIDR, writes the CNI configuration for the standard plugins
//! (bridge, host-local, portmap), and keeps one route for each other node: its pod CIDR by way of
//! its internal address. All workers share one layer-2 network, so no tunnel is needed.
//! Traffic that leaves the cluster's addresses gets this node's address as its source.
//!
//! It never creates pods' interfaces (the CNI plugins do), never writes to the API, and touches
//! only routes that carry its own protocol number and the nftables table `marina-node`.
//!
//! Invariant: the routes of protocol [`routes::PROTOCOL`] are exactly those that the Nodes ask for.

pub mod conflist;
pub mod flags;
pub mod routes;
pub mod run;
