//! kube-apiserver.

fn main() {}
