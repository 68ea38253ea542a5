//! The worker-driver interface: what a host agent asks of the program that runs its workers.
//!
//! ```text
//! provisioner agent ──Unix socket──► marina-driver-qemu | marina-driver-sandbox | (ec2)
//!                    Probe, Ensure, Delete, List: all idempotent
//! ```
//!
//! This crate holds the protocol, the checks on a [`pb::WorkerSpec`] that every driver shares, and
//! both ends of the socket. It never starts anything itself. A driver implements
//! [`WorkerDriver`] and calls [`serve`]; the agent calls [`connect`].
//!
//! Invariants: workers survive the driver and the agent; `Delete` leaves nothing behind; a worker
//! whose process has ended is reported as `EXITED` until it is deleted.

mod socket;
mod spec;

/// Generated from `proto/worker.proto`.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("marina.driver.v1");
}

pub use pb::worker_driver_client::WorkerDriverClient;
pub use pb::worker_driver_server::{WorkerDriver, WorkerDriverServer};
pub use pb::{Phase, ProbeResponse, WorkerSpec, WorkerStatus};
pub use socket::{connect, serve};
pub use spec::{SpecError, validate_id, validate_spec};
