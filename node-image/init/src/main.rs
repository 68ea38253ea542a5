//! The first process of a worker.

fn main() {}
