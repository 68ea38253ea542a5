//! Side-by-side benchmarks: ours against upstream's, in the same run.
//!
//! ```text
//! marina-bench <subject>            a network namespace of its own, nothing but loopback
//!   client's processor ──► rounds, workloads, floor; helpers that both sides share
//!   server's processor ──► the server under test, alone, in a control group of its own
//!
//!   subject ─► scenes ─► rounds ─► turns: ours, upstream, upstream, ours, …
//!                                    each turn ─► Figures ─► table, JSON, tests/bench/RESULTS.md
//! ```
//!
//! A *subject* is one server with one file below [`subjects`]. A *scene* is a setting that both
//! servers are put into, such as "10,000 Services", with a table of its own. A *turn* starts one of
//! the two servers in that scene and measures it; turns of ours and of upstream's alternate, so that
//! what else happens on the machine meets both. A *figure* is a workload, a unit and a number.
//!
//! The client's processor also carries everything that both sides share. What a server costs is its
//! processor time, counted by its control group, children included: on a machine with two processors
//! the client often limits operations per second, and never operations per CPU-second.
//!
//! Nothing is asserted here but that the servers answer correctly. This program changes nothing
//! outside the directory `bench` of the lab's directory (the kubelet's cluster is in `run-kubelet`)
//! and, with `--record`, one section of `tests/bench/RESULTS.md`.
//!
//! **Invariants**: both servers get the same flags, data on the same file system and the same work.
//! What is started dies with this program, even when that is killed; what a killed one left on disk is
//! removed by the next. Traffic never leaves the program's own network namespace.
//!
//! # To add a subject
//!
//! 1. Write `subjects/<name>.rs` (or `subjects/<name>/mod.rs`) with a `pub const ENTRY: Entry` and
//!    a type that implements [`Subject`]. Start from `subjects/etcd/mod.rs`.
//! 2. [`Subject::scenes`] names the settings; [`Subject::prepare`] makes what both sides share (for
//!    example an API server: [`cluster::Cluster`]; other programs: [`Bench::helper`]).
//! 3. [`Subject::turn`] starts the server under test with [`Bench::server`], waits for it with
//!    [`Bench::wait`], lets it come to rest with [`Bench::settle`], and fills [`Figures`]:
//!    [`Bench::measure`] drives one workload and [`Figures::sample`] enters its four rows; memory is
//!    [`Figures::memory`]; anything else is [`Figures::add`] with a [`figures::Unit`]. Whatever it
//!    starts ends when it is dropped.
//! 4. Add the line to [`subjects::ALL`]. Everything else (pinning, rounds, order, medians, tables,
//!    JSON, the section in RESULTS.md, `--quick`) is done for it.
//!
//! A workload has a fixed number of operations and a bounded time ([`drive::Load`]); `--quick` uses
//! the second argument of [`Bench::either`] and has to end within two minutes.

pub mod bench;
pub mod cluster;
pub mod drive;
pub mod figures;
pub mod floor;
pub mod machine;
pub mod results;
pub mod rounds;
pub mod subjects;

pub use bench::Bench;
pub use figures::{Figures, Unit};
pub use rounds::{Entry, Scene, Subject};
