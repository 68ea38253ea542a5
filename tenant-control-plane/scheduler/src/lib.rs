//! kube-scheduler: picks a node for each pod that has none.
//!
//! ```text
//!  informers ──change──► messages ──► engine (one task owns everything)
//!                                      │ cluster: nodes, what runs on them, what is assumed
//!                                      │ queue:   active · back-off · unschedulable
//!                                      ▼
//!                          cycle: filter plugins → score plugins → assume
//!                                      │
//!                                      ▼ (own task per pod)
//!                          pods/binding · or PodScheduled=False and an event
//! ```
//!
//! A scheduling decision is a pure function of the pod and the [`cluster::Cluster`]: no clock, no
//! I/O, no lock. One task applies changes and decides, so a decision always sees all earlier ones.
//!
//! It writes nothing but bindings, pod conditions and nominations, evictions for preemption, events
//! and its lease. After a crash it starts from the API's state alone: what was assumed but not bound
//! is decided again. A bound pod goes on to the kubelet of its node.

pub mod budget;
pub mod cluster;
pub mod config;
pub mod cycle;
pub mod engine;
pub mod flags;
pub mod metrics;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod room;
pub mod run;

#[cfg(test)]
mod testing;
