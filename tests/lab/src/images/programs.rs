//! The programs that go into images, and where each is built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use node_image::elf;
use node_image::store::Store;

/// What is taken from our own executables; everything else is upstream's, also where we have a
/// program of the same name.
const OURS: &[&str] = &["pause"];

/// Two directories of programs.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// Upstream's, as `cargo xtask upstream` builds them.
    pub upstream: &'a Path,
    /// Ours, as `cargo build --workspace` builds them.
    pub ours: &'a Path,
}

impl Programs<'_> {
    fn path(&self, name: &str) -> PathBuf {
        if OURS.contains(&name) { self.ours.join(name) } else { self.upstream.join(name) }
    }

    /// The program's file, if it is built.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        Some(self.path(name)).filter(|path| path.is_file())
    }

    /// The program's file.
    ///
    /// # Errors
    /// It is not built.
    pub fn get(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        if !path.is_file() {
            let ours = OURS.contains(&name);
            let how = if ours { "cargo build --workspace" } else { "cargo xtask upstream" };
            bail!("{} is not there: run `{how}`", path.display());
        }
        Ok(path)
    }

    /// The SHA-256 of each program, by name; programs that are not built are left out.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn digests<'n>(
        &self,
        store: &Store,
        names: &[&'n str],
    ) -> anyhow::Result<BTreeMap<&'n str, String>> {
        let found = names.iter().filter_map(|name| Some((*name, canonical(&self.find(name)?))));
        let found: Vec<(&str, PathBuf)> = found.collect();
        let paths: Vec<PathBuf> = found.iter().map(|(_, path)| path.clone()).collect();
        let digests = store.digests(&paths)?;
        Ok(found.into_iter().map(|(name, path)| (name, digests[&path].clone())).collect())
    }
}

/// A program's content, without debug information. Static programs are upstream's, built without
/// any; they and what is no program are taken as they are.
///
/// # Errors
/// It cannot be read.
pub fn content(program: &Path) -> anyhow::Result<Vec<u8>> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", program.display()));
    if elf::is_static(program).unwrap_or(true) {
        return read(program);
    }
    let dir = tempfile::tempdir().context("making a work directory")?;
    let stripped = dir.path().join("program");
    elf::strip(program, &stripped)?;
    read(&stripped)
}

/// Stamps are kept by path, so each file should have one.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_ours_does_not_stand_in_for_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let [upstream, ours] = ["upstream", "ours"].map(|name| dir.path().join(name));
        for path in [upstream.join("pause"), ours.join("pause"), ours.join("etcd")] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let programs = Programs { upstream: &upstream, ours: &ours };
        assert_eq!(programs.find("pause"), Some(ours.join("pause")));
        assert_eq!(programs.find("etcd"), None);
        assert!(programs.get("etcd").unwrap_err().to_string().contains("cargo xtask upstream"));
    }
}
