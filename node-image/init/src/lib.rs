//! The first process of a worker: it turns a kernel and a piece of JSON into a node.
//!
//! ```text
//! VM       kernel ─► /init (RAM disk: modules, root disk) ─┐
//! sandbox  driver (namespaces, overlay) ───────────────────┴─► node-init
//!   mounts ─► user-data ─► network ─► configuration ─► containerd ─► kubelet, kube-proxy, node-agent
//! ```
//!
//! It starts and restarts those four programs, collects orphaned processes, and ends the node in
//! order when it is told to (SIGTERM, or the power button of a VM). It never speaks to the API
//! server or to containerd's API, and it never changes anything on the host of a sandbox: what
//! would reach beyond the node's own namespaces is done in a VM only.
//!
//! Invariants: no error while running ends this process, because the node would end with it; only
//! a node that cannot come up at all does, and says why on the console. One console line per step,
//! `marina: <what> <seconds since start>s`; the driver reads `marina: node up` as "running".

pub mod console;
pub mod initramfs;
pub mod mounts;
pub mod network;
pub mod node;
pub mod power;
pub mod services;
pub mod settings;
pub mod supervise;
pub mod system;
pub mod user_data;
