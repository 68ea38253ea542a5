//! Workers as namespaces of this host: a node with its own root, processes, network, host name and
//! containerd, on the host's kernel. For development, tests and conformance runs. It is **not a
//! security boundary**: root on such a worker is root on the host.
//!
//! ```text
//! keeper (host) ── unshare(pid) ──► enter: cgroups, unshare(mount, net, uts, ipc, cgroup)
//!    │ veth eth0 ◄── bridge of the VPC         │ overlay(image, upper) + /var/lib/containerd …
//!    └────────────── "go" ────────────────────►│ pivot_root, exec node-init --sandbox
//! ```
//!
//! Every mount is made in the worker's own mount namespace, so none is ever seen on the host, and
//! all are gone with its last process. What remains for `Delete` are control groups and files.
//!
//! The image is the read-only lower layer. containerd's store, the kubelet's directory and the
//! logs are real directories: containerd makes overlays of its own, and an overlay cannot be the
//! upper layer of another.

mod backend;
mod cgroup;
mod enter;

pub use backend::Sandbox;
