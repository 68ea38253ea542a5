//! An unmodified kubectl: Debian 13's package, unpacked into the user's cache directory.

use std::path::PathBuf;

use anyhow::ensure;

use crate::apt;
use crate::paths::Paths;

/// Returns the path of kubectl, downloading it if it is not there yet.
pub fn ensure_kubectl(paths: &Paths) -> anyhow::Result<PathBuf> {
    let dir = paths.cache.join("tools/kubectl-trixie");
    let kubectl = dir.join("usr/bin/kubectl");
    if !kubectl.exists() {
        apt::unpack_from_suite(paths, "trixie", "kubectl", &dir)?;
        ensure!(kubectl.exists(), "Debian's package kubectl holds no usr/bin/kubectl");
    }
    Ok(kubectl)
}
