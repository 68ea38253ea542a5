//! The image that a worker is made from.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

/// Resolves an image directory, which usually is a link that the next build switches.
///
/// # Errors
/// There is no finished image.
pub fn resolve(dir: &str) -> anyhow::Result<PathBuf> {
    let found = Path::new(dir)
        .canonicalize()
        .with_context(|| format!("there is no node image at {dir}; build it with marina-image"))?;
    if !found.join("manifest.json").exists() {
        bail!("{} is no finished node image: it has no manifest.json", found.display());
    }
    Ok(found)
}

/// Tells the image build that the image is in use, for as long as the returned value lives.
///
/// # Errors
/// The image is gone.
pub fn hold(dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = dir.join("lock");
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, e)) => Err(e).with_context(|| format!("locking {}", path.display())),
    }
}
