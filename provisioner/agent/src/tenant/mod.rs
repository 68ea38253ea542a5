//! What the agent does inside a tenant's API: the objects that a cluster needs to take nodes in
//! and to resolve names, and a look at its Nodes.

pub mod bootstrap;
pub mod client;
pub mod drain;
pub mod nodes;
pub mod objects;
