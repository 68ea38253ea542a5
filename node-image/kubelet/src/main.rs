//! kubelet.

fn main() {}
