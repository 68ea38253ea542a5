//! etcd.

fn main() {}
