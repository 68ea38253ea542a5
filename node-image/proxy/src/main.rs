//! kube-proxy.

fn main() {}
