//! A release: the executables of a control plane in one directory that is named after their
//! contents, so that running clusters keep theirs while a newer one is built.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::paths::Paths;

/// The executables that the host agent starts from a release.
const MEMBERS: &[&str] =
    &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "provisioner"];

/// Copies the built executables into `<data_dir>/releases/<digest>` and returns that directory.
pub fn install(paths: &Paths, data_dir: &Path) -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    for name in MEMBERS {
        let bin = paths.bin(name);
        let content = fs::read(&bin).with_context(|| format!("cannot read {}", bin.display()))?;
        hash.update(name.as_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(&content);
    }
    let digest = hash.finalize().iter().take(8).fold(String::new(), |s, b| format!("{s}{b:02x}"));
    let releases = data_dir.join("releases");
    let release = releases.join(&digest);
    if release.exists() {
        return Ok(release);
    }
    let partial = releases.join(format!(".{digest}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).context("cannot remove an unfinished release")?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    for name in MEMBERS {
        let to = partial.join(name);
        fs::copy(paths.bin(name), &to)
            .with_context(|| format!("cannot copy {name} to {}", to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context("cannot chmod")?;
    }
    fs::rename(&partial, &release).context("cannot publish the release")?;
    Ok(release)
}
