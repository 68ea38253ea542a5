//! Workers as QEMU virtual machines in their cluster's network namespace.
//!
//! ```text
//! keeper ── setns(VPC) ──► qemu-system-x86_64 ── tap ── bridge of the VPC
//!   │ console (serial)        │ disk.qcow2 over the image's disk.raw
//!   ▼                         │ fw_cfg opt/marina/user-data
//! console.log                 └ qmp.sock: asked for the machine's state, never for more
//! ```
//!
//! The kernel is booted directly, without boot loader. The machine drops root before the guest
//! runs and may start no process. Its disk needs no flushing: a worker that has ended is replaced,
//! never started again, so nothing reads its disk after a crash of the host.
//!
//! KVM is used only after a guest has booted with it on this very machine: there are hosts where
//! `/dev/kvm` opens and guests hang. Otherwise QEMU emulates (TCG).

mod accelerator;
mod backend;
mod machine;
mod qmp;

pub use backend::Qemu;
