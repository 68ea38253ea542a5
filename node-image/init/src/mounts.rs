//! The file systems that a node expects, in a VM and in a sandbox.

use std::fs;
use std::path::Path;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::system::System;

const NONE: Option<&str> = None;

/// Mounts a new file system, making the directory if necessary.
///
/// # Errors
/// The kernel refuses; the message names the place.
pub fn mount_new(
    source: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    options: Option<&str>,
) -> anyhow::Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {target}"))?;
    mount(Some(source), target, Some(kind), flags, options)
        .with_context(|| format!("mounting {kind} on {target}"))
}

/// Mounts everything that the node needs beside its root.
///
/// In a sandbox the driver has mounted `/run` with the user-data in it; in a VM the RAM disk has
/// mounted `/proc`, `/sys` and `/dev`.
///
/// # Errors
/// One of them cannot be mounted.
pub fn mount_all(system: System) -> anyhow::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let no_device = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match system {
        System::VirtualMachine => {
            mount_new("tmpfs", "/run", "tmpfs", no_device, Some("mode=755"))?;
        }
        System::Sandbox => {
            mount_new("proc", "/proc", "proc", quiet, None)?;
            show_own_memory();
            mount_new("sysfs", "/sys", "sysfs", quiet, None)?;
            mount_new("tmpfs", "/dev", "tmpfs", MsFlags::MS_NOSUID, Some("mode=755"))?;
            device_nodes()?;
        }
    }
    let terminals = Some("newinstance,gid=5,mode=620,ptmxmode=666");
    mount_new("devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID, terminals)?;
    mount_new("tmpfs", "/dev/shm", "tmpfs", no_device, Some("mode=1777"))?;
    mount_new("mqueue", "/dev/mqueue", "mqueue", quiet, None)?;
    mount_new("tmpfs", "/tmp", "tmpfs", no_device, Some("mode=1777"))?;
    cgroups(system)?;
    // Volumes that a pod mounts for others (`Bidirectional`) must reach the node and other pods;
    // nothing leaves the node, whose mount namespace is its own.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)
        .context("sharing mounts within the node")
}

/// In a sandbox the kernel would show the host's memory; the driver says what the node has.
fn show_own_memory() {
    // Without it the node only believes to have more than it may use.
    let from = Some("/run/marina/meminfo");
    let _ = mount(from, "/proc/meminfo", NONE, MsFlags::MS_BIND, NONE);
}

/// The few devices that programs take for granted.
fn device_nodes() -> anyhow::Result<()> {
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("kmsg", 1, 11),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        let path = format!("/dev/{name}");
        let mode = Mode::from_bits_truncate(if name == "kmsg" { 0o600 } else { 0o666 });
        mknod(path.as_str(), SFlag::S_IFCHR, mode, makedev(major, minor))
            .with_context(|| format!("creating {path}"))?;
        // The mode above passes through the umask.
        nix::sys::stat::fchmodat(
            nix::fcntl::AT_FDCWD,
            path.as_str(),
            mode,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        std::os::unix::fs::symlink(target, format!("/dev/{name}"))
            .with_context(|| format!("linking /dev/{name}"))?;
    }
    Ok(())
}

/// Mounts the control groups as the kernel has them: version 2 alone, or each hierarchy of
/// version 1. In a sandbox they show the part below the node's own group.
fn cgroups(system: System) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let own = fs::read_to_string("/proc/self/cgroup").context("reading /proc/self/cgroup")?;
    let hierarchies = version_1(&own);
    if system == System::VirtualMachine || hierarchies.is_empty() {
        mount_new("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, Some("nsdelegate"))
            .or_else(|_| mount_new("cgroup2", "/sys/fs/cgroup", "cgroup2", flags, None))?;
        return delegate(Path::new("/sys/fs/cgroup"));
    }
    mount_new("tmpfs", "/sys/fs/cgroup", "tmpfs", flags, Some("mode=755"))?;
    for (directory, options) in hierarchies {
        let target = format!("/sys/fs/cgroup/{directory}");
        mount_new("cgroup", &target, "cgroup", flags, Some(&options))?;
    }
    Ok(())
}

/// The version 1 hierarchies in `/proc/self/cgroup`: (directory, mount option).
fn version_1(own: &str) -> Vec<(String, String)> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers) = (parts.next()?, parts.next()?);
            let named = controllers.strip_prefix("name=");
            (!controllers.is_empty())
                .then(|| (named.unwrap_or(controllers).to_owned(), controllers.to_owned()))
        })
        .collect()
}

/// Lets groups below the root have controllers. A group with controllers for its children holds no
/// processes itself, so those that run now move into a group of their own.
fn delegate(root: &Path) -> anyhow::Result<()> {
    let own = root.join("node");
    fs::create_dir_all(&own).context("creating the node's own control group")?;
    for pid in fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default().lines() {
        // Kernel threads stay; processes may have ended meanwhile.
        let _ = fs::write(own.join("cgroup.procs"), pid);
    }
    let available = fs::read_to_string(root.join("cgroup.controllers"))
        .context("reading the available controllers")?;
    for controller in available.split_whitespace() {
        // One at a time: a controller that cannot be delegated must not keep the others back.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_and_version_2_is_not_one() {
        let own = "9:name=systemd:/\n8:pids:/a\n3:cpu,cpuacct:/a:b\n0::/\n";
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            version_1(own),
            [
                pair("systemd", "name=systemd"),
                pair("pids", "pids"),
                pair("cpu,cpuacct", "cpu,cpuacct")
            ]
        );
        assert!(version_1("0::/\n").is_empty());
    }
}
