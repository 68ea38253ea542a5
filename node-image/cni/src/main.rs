//! Pod routes between nodes.

fn main() {}
