//! The first process of a worker.
