//! The provisioner's command line.

fn main() {}
