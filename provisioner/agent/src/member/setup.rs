//! The directories and files of a member, and how it is to be launched.
//!
//! ```text
//! <data-dir>/clusters/<cluster>/uid
//!                              /egress/            bound at /mnt/egress
//!                              /logs/<member>.log
//!                              /members/<member>/  lock, run.json, launch.json
//!                                       config/    bound at /mnt/config, read-only
//!                                       data/      bound at /mnt/data
//! ```

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail};
use provisioner_api::{launch_hash, paths, pb};

use crate::{
    cgroup::{self, CgroupLimits},
    config::AgentConfig,
    process::{Bind, Jail, LaunchSpec},
};

/// Where the files of one cluster are.
#[derive(Clone, Debug)]
pub struct ClusterDir {
    /// The directory.
    pub root: PathBuf,
    /// User id of its processes.
    pub uid: u32,
}

impl ClusterDir {
    /// The directory of egress sockets.
    pub fn egress(&self) -> PathBuf {
        self.root.join("egress")
    }

    /// The directory of a member.
    pub fn member(&self, name: &str) -> PathBuf {
        self.root.join("members").join(name)
    }

    /// The log of a member.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// Makes the cluster's directories and gives it a user id that no other cluster here has.
    pub fn ensure(clusters: &Path, id: &str, first_uid: u32) -> anyhow::Result<Self> {
        let root = clusters.join(id);
        for dir in [&root, &root.join("members"), &root.join("logs"), &root.join("workers")] {
            make_dir(dir, 0o700)?;
        }
        let uid = claim_uid(clusters, &root, first_uid)?;
        let dir = Self { root, uid };
        make_dir(&dir.egress(), 0o750)?;
        chown(dir.egress(), Some(0), Some(uid))?;
        Ok(dir)
    }
}

/// The cluster's user id, chosen at the first call. Clusters converge side by side: looking for a
/// free one and writing it down are one step, or two tenants would run as the same user.
fn claim_uid(clusters: &Path, root: &Path, first_uid: u32) -> anyhow::Result<u32> {
    static CLAIM: Mutex<()> = Mutex::new(());
    let _claim = CLAIM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(uid) = read_uid(root)? {
        return Ok(uid);
    }
    let uid = free_uid(clusters, first_uid)?;
    crate::durable::write(&root.join("uid"), uid.to_string().as_bytes(), 0o600)?;
    Ok(uid)
}

fn read_uid(root: &Path) -> anyhow::Result<Option<u32>> {
    let Some(text) = crate::durable::read(&root.join("uid"))? else { return Ok(None) };
    let text = String::from_utf8(text).context("user id file")?;
    Ok(Some(text.trim().parse().context("user id file")?))
}

fn free_uid(clusters: &Path, first_uid: u32) -> anyhow::Result<u32> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(clusters)? {
        taken.extend(read_uid(&entry?.path())?);
    }
    (first_uid..u32::MAX - 1).find(|uid| !taken.contains(uid)).context("no user id is free")
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A name that becomes a directory.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(allowed) {
        bail!("{name:?}: a name has 1 to 63 of a-z, 0-9 and '-'");
    }
    Ok(())
}

/// Writes the member's files and returns how to launch it.
pub fn prepare(
    config: &AgentConfig,
    cluster: &str,
    dir: &ClusterDir,
    member: &pb::Member,
) -> anyhow::Result<LaunchSpec> {
    check_name(&member.name)?;
    check_name(&member.binary)?;
    if !config.release_dir.join(&member.binary).exists() {
        bail!("{} is not in the release {}", member.binary, config.release_dir.display());
    }
    let base = dir.member(&member.name);
    make_dir(&base, 0o700)?;
    let (conf, data) = (base.join("config"), base.join("data"));
    make_dir(&conf, 0o750)?;
    chown(&conf, Some(0), Some(dir.uid))?;
    make_dir(&data, 0o700)?;
    chown(&data, Some(dir.uid), Some(dir.uid))?;
    write_files(&conf, member, dir.uid)?;
    let limits = member.limits.unwrap_or_default();
    let limits = CgroupLimits {
        memory_mib: limits.memory_mib,
        pids: limits.pids,
        cpu_shares: limits.cpu_shares,
    };
    let cgroups = cgroup::ensure(cluster, &member.name, limits).context("control groups")?;
    let bind = |from: PathBuf, to: &str, writable| Bind { from, to: to.into(), writable };
    Ok(LaunchSpec {
        dir: base,
        hash: launch_hash(member),
        program: format!("{}/{}", paths::RELEASE, member.binary),
        args: member.args.clone(),
        env: vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            // glibc would make eight arenas per processor: memory that is never given back.
            ("MALLOC_ARENA_MAX".to_owned(), "2".to_owned()),
        ],
        log: dir.log(&member.name),
        cgroups,
        jail: Some(Jail {
            uid: dir.uid,
            binds: vec![
                bind(conf, paths::CONFIG, false),
                bind(data, paths::DATA, true),
                bind(config.release_dir.clone(), paths::RELEASE, false),
                bind(dir.egress(), paths::EGRESS, false),
            ],
            hide: vec![config.data_dir.clone(), PathBuf::from("/run/netns")],
        }),
    })
}

fn write_files(conf: &Path, member: &pb::Member, uid: u32) -> anyhow::Result<()> {
    for entry in fs::read_dir(conf)? {
        let entry = entry?;
        let wanted = entry.file_name().to_str().is_some_and(|n| member.files.contains_key(n));
        if !wanted {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, content) in &member.files {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.starts_with('.') || !name.bytes().all(plain) {
            bail!("{name:?} is no file name");
        }
        let path = conf.join(name);
        if crate::durable::read(&path)?.as_deref() != Some(content.as_bytes()) {
            crate::durable::write(&path, content.as_bytes(), 0o440)?;
        }
        chown(&path, Some(0), Some(uid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_made_at_once_run_as_different_users() {
        let clusters = tempfile::tempdir().expect("a directory");
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let clusters = clusters.path().to_owned();
                std::thread::spawn(move || {
                    let root = clusters.join(format!("c{n}"));
                    make_dir(&root, 0o700).expect("a directory");
                    let uid = claim_uid(&clusters, &root, 5000).expect("a user id");
                    assert_eq!(claim_uid(&clusters, &root, 5000).expect("the same"), uid);
                    uid
                })
            })
            .collect();
        let mut uids: Vec<_> = threads.into_iter().map(|t| t.join().expect("no panic")).collect();
        uids.sort_unstable();
        assert_eq!(uids, (5000..5016).collect::<Vec<_>>());
    }
}
