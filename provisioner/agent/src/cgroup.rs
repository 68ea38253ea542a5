//! Control groups of members: version 2, or version 1 with its hierarchies (also "hybrid").
//!
//! Names: `marina-<cluster>/<member>` at the top of each hierarchy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// What a member may use; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// MiB.
    pub memory_mib: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Relative share of the processors; 1024 is one share (cgroup v1's unit).
    pub cpu_shares: u32,
}

/// Makes the groups of a member and returns the `cgroup.procs` files that it has to join. Limits
/// that the system does not support are skipped: they are a second line of defence.
pub fn ensure(cluster: &str, member: &str, limits: CgroupLimits) -> io::Result<Vec<PathBuf>> {
    let parent = group_name(cluster);
    let mut procs = Vec::new();
    for (hierarchy, version) in hierarchies() {
        let top = hierarchy.join(&parent);
        fs::create_dir_all(&top)?;
        if version == Version::Two {
            // A controller that cannot be passed on (already used elsewhere) has no limit here.
            for controller in ["+cpu", "+memory", "+pids"] {
                let _ = fs::write(hierarchy.join("cgroup.subtree_control"), controller);
                let _ = fs::write(top.join("cgroup.subtree_control"), controller);
            }
        }
        let group = top.join(member);
        fs::create_dir_all(&group)?;
        for (file, value) in settings(version, limits) {
            let path = group.join(file);
            if path.exists() {
                fs::write(path, value)?;
            }
        }
        procs.push(group.join("cgroup.procs"));
    }
    Ok(procs)
}

/// Kills what is left in a cluster's groups and removes them. True when nothing is left.
pub fn remove(cluster: &str) -> io::Result<bool> {
    let mut gone = true;
    for (hierarchy, _) in hierarchies() {
        gone &= remove_group(&hierarchy.join(group_name(cluster)))?;
    }
    Ok(gone)
}

/// Removes the groups of one member, if it is empty.
pub fn remove_member(cluster: &str, member: &str) -> io::Result<bool> {
    let mut gone = true;
    for (hierarchy, _) in hierarchies() {
        gone &= remove_group(&hierarchy.join(group_name(cluster)).join(member))?;
    }
    Ok(gone)
}

fn group_name(cluster: &str) -> String {
    format!("marina-{cluster}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

fn hierarchies() -> Vec<(PathBuf, Version)> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![(root.to_owned(), Version::Two)];
    }
    ["memory", "pids", "cpu", "cpu,cpuacct"]
        .iter()
        .map(|name| root.join(name))
        // "cpu" is often a link to "cpu,cpuacct": one of them is enough.
        .filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink())
        .map(|path| (path, Version::One))
        .collect()
}

fn settings(version: Version, limits: CgroupLimits) -> Vec<(&'static str, String)> {
    let bytes = limits.memory_mib * 1024 * 1024;
    let mut settings = Vec::new();
    match version {
        Version::One => {
            if bytes > 0 {
                settings.push(("memory.limit_in_bytes", bytes.to_string()));
            }
            if limits.cpu_shares > 0 {
                settings.push(("cpu.shares", limits.cpu_shares.to_string()));
            }
        }
        Version::Two => {
            if bytes > 0 {
                settings.push(("memory.max", bytes.to_string()));
            }
            if limits.cpu_shares > 0 {
                // 1024 shares are weight 100 (the kernel's defaults of both versions).
                let weight = (limits.cpu_shares * 100 / 1024).clamp(1, 10_000);
                settings.push(("cpu.weight", weight.to_string()));
            }
        }
    }
    if limits.pids > 0 {
        settings.push(("pids.max", limits.pids.to_string()));
    }
    settings
}

/// Kills and removes a group with its children; false when processes are still ending.
fn remove_group(group: &Path) -> io::Result<bool> {
    if !group.exists() {
        return Ok(true);
    }
    let mut gone = true;
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            gone &= remove_group(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            // The pid was read from a group that only our members are in.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
    match fs::remove_dir(group) {
        Ok(()) => Ok(gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(gone),
        // EBUSY: a killed process is not gone yet.
        Err(_) => Ok(false),
    }
}
