//! Holds a pod's namespaces open.

fn main() {}
