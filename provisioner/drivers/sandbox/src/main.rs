//! Workers in namespaces of this host.

fn main() {}
