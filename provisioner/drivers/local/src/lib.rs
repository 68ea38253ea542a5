//! What the drivers that run workers on this very host have in common: the `qemu` and the
//! `sandbox` driver differ in a [`Backend`], and in nothing else.
//!
//! ```text
//! agent ──gRPC──► driver ──spawns──► keeper ──spawns──► the worker's first process
//!                   │  reads            │ writes: process.json, console.log, running, exit.json
//!                   └──► <state dir>/<worker id>/ ◄──┘
//! ```
//!
//! A **keeper** is one small process per worker (the driver's own executable, in a session of its
//! own). It is the worker's parent: it starts it, copies its console into a log of bounded size,
//! notices the line that says "node up", and writes down how it ended. It survives the driver.
//!
//! The driver keeps nothing in memory: every answer is read from the state directory and `/proc`,
//! so a driver that was killed simply goes on. It never restarts a worker that has ended.
//!
//! Invariants:
//! - A process is known by id, start time and boot, never by id alone.
//! - `process.json` exists if and only if a worker's process was started.
//! - `Delete` ends the process first, then undoes what the backend made, then removes the files;
//!   each step may be repeated.

mod backend;
mod console;
mod driver;
mod entry;
pub mod image;
mod keeper;
pub mod link;
pub mod process;
mod record;

pub use backend::{Backend, Started};
pub use driver::LocalDriver;
pub use entry::run;
pub use record::{Worker, WorkerRecord};
