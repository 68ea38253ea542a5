//! Workers as QEMU virtual machines.

fn main() {}
