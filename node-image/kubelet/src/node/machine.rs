//! Facts about the machine, read from `/proc`, `/sys` and `/etc`.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use anyhow::Context as _;

/// What does not change while the kubelet runs.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Machine {
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// Go's name, as in `amd64`.
    pub architecture: &'static str,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// A value of `/proc/meminfo` in bytes.
fn meminfo(text: &str, key: &str) -> Option<i64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// `PRETTY_NAME` of an os-release file.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Memory that could be given to a new process, bytes.
pub fn available_memory() -> i64 {
    meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
        .unwrap_or(i64::MAX)
}

/// Total and free bytes of the file system at `path` (free for unprivileged users), and inodes.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Disk {
    pub total: u64,
    pub free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// The file system at `path`.
///
/// # Errors
/// When there is none.
pub fn disk(path: &Path) -> std::io::Result<Disk> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let block = stat.fragment_size();
    Ok(Disk {
        total: stat.blocks() * block,
        free: stat.blocks_available() * block,
        inodes: stat.files(),
        inodes_free: stat.files_available(),
    })
}

/// Process ids in use and the largest number of them.
pub fn pids() -> Option<(u64, u64)> {
    let max = line("/proc/sys/kernel/pid_max").parse().ok()?;
    let threads = line("/proc/loadavg").split(' ').nth(3)?.split('/').nth(1)?.parse().ok()?;
    Some((threads, max))
}

impl Machine {
    /// Reads the facts.
    ///
    /// # Errors
    /// When the machine's memory cannot be learned.
    pub fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let memory = meminfo(&text, "MemTotal").context("/proc/meminfo has no MemTotal")?;
        let os = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Ok(Self {
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| n.get().try_into().unwrap_or(1)),
            memory,
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os.ok().and_then(|t| pretty_name(&t)).unwrap_or_else(|| "Linux".into()),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        })
    }
}

/// The address from which this machine reaches `target`: what a node without `--node-ip`
/// reports. No packet is sent.
pub fn address_towards(target: &str) -> Option<IpAddr> {
    let any = if target.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_understood() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2 << 20));
        assert_eq!(pretty_name("A=1\nPRETTY_NAME=\"Debian 13\"\n").as_deref(), Some("Debian 13"));
        let machine = Machine::read().unwrap();
        assert!(machine.cpus > 0 && machine.memory > 0 && !machine.kernel.is_empty());
    }
}
