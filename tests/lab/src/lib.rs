//! The lab: a two-node cluster from any mix of our parts and upstream's.
//!
//! ```text
//! lab process ──► network namespace marina-<name>
//!   │ 127.0.0.1:port ─relay─► 10.0.0.1:6443   etcd · kube-apiserver · kube-controller-manager ·
//!   │ (root namespace)                        kube-scheduler, each ours or upstream's
//!   │                                         bridge br0
//!   └─► marina-driver-sandbox ──► nodes n1, n2: containerd 2.x, kubelet and kube-proxy, ours or
//!                                 upstream's, node-agent
//! ```
//!
//! Nothing here is a part of the product: it starts executables and talks to them as others do. A
//! part is chosen by the file that is started; flags that only upstream's takes are listed in
//! [`control`], so that whatever differs between two mixes is the part.
//!
//! **Invariants**: the control plane dies with the lab, even when that is killed; the next lab of
//! the same name removes what a killed one left (nodes, namespace, control groups). Nothing listens
//! outside the loopback interface and the lab's own network namespace.
//!
//! A test of any mix: [`lab::Lab::start`], then [`lab::Lab::kubectl`].

pub mod accounting;
pub mod conformance;
pub mod control;
pub mod images;
pub mod integration;
pub mod kubectl;
pub mod lab;
pub mod mix;
pub mod network;
pub mod nodes;
pub mod objects;
pub mod places;
pub mod process;
