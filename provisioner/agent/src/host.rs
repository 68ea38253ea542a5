//! What the host has.

use std::{fs, path::Path};

use nix::sys::statvfs::statvfs;
use provisioner_api::pb;

/// Processors, memory, and free disk below a directory.
pub fn capacity(data_dir: &Path, ports: (u16, u16)) -> pb::Capacity {
    let vcpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    let disk_free_gib = statvfs(data_dir)
        .map(|stat| (stat.blocks_available() * stat.fragment_size()) >> 30)
        .unwrap_or(0);
    pb::Capacity {
        vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
        memory_mib: memory_mib(),
        disk_free_gib,
        port_min: ports.0.into(),
        port_max: ports.1.into(),
    }
}

/// `MemTotal` of `/proc/meminfo`.
fn memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
