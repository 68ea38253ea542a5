//! The worker's control groups: one in every hierarchy of the host, version 1 or 2, all of the
//! same name. The worker sees them as the roots of its own hierarchies.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long the kernel may take to let go of an emptied group.
const PATIENCE: Duration = Duration::from_secs(10);

/// One period of processor time, in microseconds.
const PERIOD_US: u64 = 100_000;

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Whether it is version 2.
    pub unified: bool,
}

/// All hierarchies that are mounted on this host.
pub fn hierarchies() -> Vec<Hierarchy> {
    parse(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (Some(_), Some(target), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let unified = kind == "cgroup2";
        if (unified || kind == "cgroup") && target.starts_with("/sys/fs/cgroup") {
            found.push(Hierarchy { root: target.into(), unified });
        }
    }
    found
}

/// The group of a worker in one hierarchy.
fn group(hierarchy: &Hierarchy, worker_id: &str) -> PathBuf {
    hierarchy.root.join(format!("marina-worker-{worker_id}"))
}

/// Makes the worker's groups, with its share of processors and memory as limits.
///
/// # Errors
/// A group cannot be made or a limit cannot be set.
pub fn create(worker_id: &str, vcpus: u32, memory_mib: u64) -> anyhow::Result<()> {
    let quota = u64::from(vcpus) * PERIOD_US;
    for hierarchy in hierarchies() {
        let dir = group(&hierarchy, worker_id);
        if hierarchy.unified {
            delegate(&hierarchy.root);
        }
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        if !hierarchy.unified {
            // A new group has no processors at all until it is given some.
            inherit(&hierarchy.root, &dir, "cpuset.cpus")?;
            inherit(&hierarchy.root, &dir, "cpuset.mems")?;
        }
        let limits = [
            ("memory.limit_in_bytes", (memory_mib << 20).to_string()),
            ("memory.max", (memory_mib << 20).to_string()),
            ("cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota.to_string()),
            ("cpu.max", format!("{quota} {PERIOD_US}")),
        ];
        for (file, value) in limits {
            let path = dir.join(file);
            if path.exists() {
                fs::write(&path, &value)
                    .with_context(|| format!("writing {value} to {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Puts the calling process into the worker's groups.
///
/// # Errors
/// A group is missing or refuses.
pub fn join(worker_id: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies() {
        let path = group(&hierarchy, worker_id).join("cgroup.procs");
        // "0" is the writer itself, whatever its id is in this process namespace.
        fs::write(&path, "0").with_context(|| format!("joining {}", path.display()))?;
    }
    Ok(())
}

/// Removes the worker's groups and all below them. Their processes have ended.
///
/// # Errors
/// One is still in use.
pub fn remove(worker_id: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for hierarchy in hierarchies() {
        let dir = group(&hierarchy, worker_id);
        loop {
            match remove_tree(&dir) {
                Ok(()) => break,
                Err(e) if Instant::now() > deadline => {
                    bail!("control group {} is not removed: {e}", dir.display());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    Ok(())
}

/// Groups are removed from the leaves up, as directories; the files in them are not removed.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn inherit(parent: &Path, dir: &Path, file: &str) -> anyhow::Result<()> {
    let path = dir.join(file);
    if path.exists() {
        let value =
            fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file}"))?;
        fs::write(&path, value.trim()).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Hands every controller of a version 2 hierarchy down. Beside version 1 it has none.
fn delegate(root: &Path) {
    let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace() {
        // One that cannot be handed down is one limit less, not the end of the worker.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_and_other_mounts_are_not() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /elsewhere/cpu cgroup rw,cpu 0 0\nproc /proc proc rw 0 0\n";
        let found = parse(mounts);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Hierarchy { root: "/sys/fs/cgroup/memory".into(), unified: false });
        assert!(found[1].unified);
    }

    #[test]
    fn a_tree_of_groups_is_removed_from_the_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("marina-worker-x");
        fs::create_dir_all(group.join("kubepods/pod1")).unwrap();
        remove_tree(&group).unwrap();
        assert!(!group.exists());
        remove_tree(&group).unwrap();
    }
}
