//! Bakes the image that every worker runs: a Debian root file system with containerd and our
//! binaries, as a directory tree (sandbox workers), a disk with kernel and initrd (QEMU workers).
//!
//! ```text
//! Debian packages ─► base ──┐                        (cached by package list)
//! pause, dns, demo ─► OCI archives ─► containerd's store ──┐   (cached by content)
//! kubelet, kube-proxy, … ───┴────────► tree ─► disk.raw, initrd.img, manifest.json
//! ```
//!
//! It never talks to a cluster, never writes outside its cache and output directories, and stores
//! nothing about this machine in the image. The drivers read the result. The modules that are
//! public are its tools: the tests' lab makes other images with them.
//!
//! Invariants:
//! - An image directory never changes once it has its name; `out` is a link that is switched
//!   atomically, so workers that were started from an older image keep theirs.
//! - Equal inputs are recognised before anything is built, and reused.
//! - One build at a time per cache directory; others wait.
//! - Files carry one fixed time, directories are written in sorted order and the file system has
//!   a fixed UUID. The one part that differs between two bakes of equal inputs is containerd's
//!   metadata database, which records when an image was imported.

mod base;
mod build;
pub mod command;
pub mod debian;
mod disk;
pub mod elf;
mod initrd;
mod manifest;
pub mod oci;
pub mod preload;
mod sources;
pub mod store;
pub mod tree;

pub use build::{Image, Options, build};
pub use manifest::Manifest;

/// The one time stamp of everything in an image: seconds since 1970, 2026-01-01T00:00:00Z.
pub const SOURCE_DATE_EPOCH: i64 = 1_767_225_600;

/// The Debian release that workers run.
pub const SUITE: &str = "trixie";
