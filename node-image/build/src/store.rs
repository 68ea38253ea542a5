//! The cache directory: finished things under content-derived names, one builder at a time.
//!
//! ```text
//! <bake>/lock             held by the one builder
//! <bake>/tmp/…            unfinished work; whatever a killed builder left is removed
//! <bake>/base-…           base systems       <bake>/images-…   containerd stores
//! <bake>/node-…           finished images    <bake>/stamps.json   digests of known files
//! <bake>/links.json       the links that point at finished images
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An opened cache directory; no other builder works in it while this value lives.
pub struct Store {
    dir: PathBuf,
    _lock: Flock<File>,
}

/// What a file looked like when its digest was taken.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone)]
struct Stamp {
    size: u64,
    modified_ns: i128,
    inode: u64,
    sha256: String,
}

impl Store {
    /// Opens `dir`, waiting for another builder to finish.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(dir: &Path, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let open = || {
            let path = dir.join("lock");
            File::create(&path).with_context(|| format!("creating {}", path.display()))
        };
        let lock = match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err(_) => {
                progress("waiting for another image build to finish");
                Flock::lock(open()?, FlockArg::LockExclusive)
                    .map_err(|(_, e)| e)
                    .context("locking the cache directory")?
            }
        };
        crate::tree::remove(&dir.join("tmp"))?;
        fs::create_dir(dir.join("tmp"))?;
        Ok(Self { dir, _lock: lock })
    }

    /// A finished thing by name.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.exists())
    }

    /// A directory to work in, on the file system of the cache.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.dir.join("tmp")).context("making a work directory")
    }

    /// Gives finished work its name, replacing what had it.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn keep(&self, work: tempfile::TempDir, name: &str) -> anyhow::Result<PathBuf> {
        let target = self.dir.join(name);
        crate::tree::remove(&target)?;
        let path = work.keep();
        // Made private by tempfile; tenants' processes read images without being root.
        set_mode(&path, 0o755)?;
        fs::rename(&path, &target).with_context(|| format!("naming {}", target.display()))?;
        Ok(target)
    }

    /// The SHA-256 of each file, in hexadecimal. Files that have not changed since the last call
    /// (size, time of change, inode) are not read again.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digests(&self, files: &[PathBuf]) -> anyhow::Result<BTreeMap<PathBuf, String>> {
        let path = self.dir.join("stamps.json");
        let mut stamps: BTreeMap<PathBuf, Stamp> = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut found = BTreeMap::new();
        for file in files {
            let meta = fs::metadata(file).with_context(|| format!("reading {}", file.display()))?;
            let modified_ns =
                i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let known = stamps.get(file).filter(|s| {
                s.size == meta.len() && s.modified_ns == modified_ns && s.inode == meta.ino()
            });
            let sha256 = match known {
                Some(stamp) => stamp.sha256.clone(),
                None => sha256_of(file)?,
            };
            let stamp =
                Stamp { size: meta.len(), modified_ns, inode: meta.ino(), sha256: sha256.clone() };
            stamps.insert(file.clone(), stamp);
            found.insert(file.clone(), sha256);
        }
        stamps.retain(|path, _| path.exists());
        fs::write(&path, serde_json::to_vec_pretty(&stamps)?)?;
        Ok(found)
    }

    /// Makes `link` point at `target` in one step, and remembers that it does: several checkouts
    /// may share a cache.
    ///
    /// # Errors
    /// `link` exists and is no link, or its directory cannot be written.
    pub fn publish(&self, target: &Path, link: &Path) -> anyhow::Result<()> {
        let link = std::path::absolute(link)?;
        switch(target, &link)?;
        let mut links = self.links();
        links.insert(link);
        links.retain(|link| link.is_symlink());
        fs::write(self.dir.join("links.json"), serde_json::to_vec_pretty(&links)?)?;
        Ok(())
    }

    fn links(&self) -> BTreeSet<PathBuf> {
        let bytes = fs::read(self.dir.join("links.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Removes finished things with this prefix, other than `current`, that no published link
    /// points at, that no worker uses, and that are not among the `spare` newest.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn collect(&self, prefix: &str, current: &Path, spare: usize) -> anyhow::Result<()> {
        let published: Vec<PathBuf> =
            self.links().iter().filter_map(|link| fs::read_link(link).ok()).collect();
        let mut old: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(&self.dir)?
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
            .map(|e| e.path())
            .filter(|path| path != current && !published.contains(path))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        old.sort();
        old.reverse();
        for (_, path) in old.into_iter().skip(spare) {
            if !in_use(&path) {
                crate::tree::remove(&path)?;
            }
        }
        Ok(())
    }
}

/// A worker holds a shared lock on its image's `lock` file for as long as it runs.
fn in_use(image: &Path) -> bool {
    let Ok(file) = File::open(image.join("lock")) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

fn switch(target: &Path, link: &Path) -> anyhow::Result<()> {
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    if fs::symlink_metadata(link).is_ok_and(|m| !m.is_symlink()) {
        bail!("{} exists and is not a link made by an earlier build", link.display());
    }
    let mut name = link.file_name().context("the output has no name")?.to_os_string();
    name.push(format!(".{}", std::process::id()));
    let fresh = link.with_file_name(name);
    std::os::unix::fs::symlink(target, &fresh)
        .with_context(|| format!("creating {}", fresh.display()))?;
    fs::rename(&fresh, link).with_context(|| format!("switching {}", link.display()))
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// The SHA-256 of a file's content, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn sha256_of(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(|| format!("reading {}", path.display()))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Store {
        Store::open(dir, &mut |_| {}).unwrap()
    }

    #[test]
    fn kept_work_has_its_name_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        let work = s.scratch().unwrap();
        fs::write(work.path().join("f"), "x").unwrap();
        s.keep(work, "base-1").unwrap();
        assert!(s.find("base-1").unwrap().join("f").exists());
        std::mem::forget(s.scratch().unwrap());
        drop(s);
        let s = store(dir.path());
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        assert!(s.find("base-2").is_none());
    }

    #[test]
    fn the_link_is_switched_and_a_directory_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("out");
        let s = store(dir.path());
        s.publish(Path::new("/one"), &link).unwrap();
        s.publish(Path::new("/two"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/two"));
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(s.publish(Path::new("/one"), &dir.path().join("dir")).is_err());
    }

    #[test]
    fn an_image_in_use_or_published_is_not_collected() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        let mut made = Vec::new();
        for name in ["node-a", "node-b", "node-c"] {
            let work = s.scratch().unwrap();
            fs::write(work.path().join("lock"), "").unwrap();
            made.push(s.keep(work, name).unwrap());
        }
        let held = Flock::lock(File::open(made[0].join("lock")).unwrap(), FlockArg::LockShared)
            .map_err(|(_, e)| e)
            .unwrap();
        let link = dir.path().join("out");
        s.publish(&made[1], &link).unwrap();
        s.collect("node-", &made[2], 0).unwrap();
        assert!(made.iter().all(|path| path.exists()));
        fs::remove_file(link).unwrap();
        s.collect("node-", &made[2], 0).unwrap();
        assert!(made[0].exists() && !made[1].exists() && made[2].exists());
        drop(held);
        s.collect("node-", &made[2], 0).unwrap();
        assert!(!made[0].exists());
    }

    #[test]
    fn digests_follow_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let s = store(dir.path());
        let file = dir.path().join("f");
        fs::write(&file, "abc").unwrap();
        let first = s.digests(std::slice::from_ref(&file)).unwrap();
        assert_eq!(
            first[&file],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        fs::write(&file, "abcd").unwrap();
        assert_ne!(s.digests(std::slice::from_ref(&file)).unwrap(), first);
    }
}
