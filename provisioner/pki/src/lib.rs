//! Certificate authorities: one set per cluster, one for the region.
//!
//! ```text
//! region CA ── controller (client) ─── agent of each host (server)
//! cluster CA set, never shared between clusters
//!   cluster CA ── API server (server), admins, controllers, kube-proxy (clients); kubelets by CSR
//!   etcd CA ───── etcd members (client port), API server's etcd client
//!   etcd peer CA  etcd members (peer port)
//!   front proxy   aggregation layer (reserved)
//!   SA key ────── signs ServiceAccount tokens (ES256)
//! ```
//!
//! All keys are ECDSA P-256 in PKCS#8 PEM. A leaf says exactly what it is for: a server
//! certificate has server authentication only, a client certificate client authentication only.
//!
//! **Never**: this crate stores nothing and reads no clock; callers pass the time and keep what
//! they get (the controller in sealed rows of the database).
//!
//! **Next**: the controller puts the files of [`members`] into a host's desired state; the portal
//! hands a [`kubeconfig`] to the customer.

pub mod authority;
pub mod cluster;
pub mod kubeconfig;
pub mod members;
pub mod region;

pub use authority::{Authority, Issued, Leaf, PkiError, Usage};
pub use cluster::{ADMIN_GROUP, ClusterPki};
pub use kubeconfig::{AdminKubeconfig, Kubeconfig};
pub use region::RegionPki;
