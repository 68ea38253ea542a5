//! Where things are: the checkout, the build's output, the user's cache directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The directories that every command works with.
pub struct Paths {
    /// The checkout.
    pub root: PathBuf,
    /// Where cargo puts what it builds: `$CARGO_TARGET_DIR`, or a directory in the user's cache that
    /// all checkouts share, so that a new checkout compiles no dependency again.
    pub target: PathBuf,
    /// `~/.cache/marina`: built images, downloaded tools. Shared between checkouts.
    pub cache: PathBuf,
}

impl Paths {
    /// Asks cargo for the checkout and its target directory.
    pub fn find() -> anyhow::Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .context("cargo metadata cannot be started")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
        let path = |key: &str| -> anyhow::Result<PathBuf> {
            Ok(PathBuf::from(metadata[key].as_str().with_context(|| format!("no {key}"))?))
        };
        let cache = cache_dir()?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(_) => path("target_directory")?,
            None => cache.join("target"),
        };
        Ok(Self { root: path("workspace_root")?, target, cache })
    }

    /// The directory of built executables.
    pub fn bin_dir(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// One built executable.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bin_dir().join(name)
    }

    /// A path from the command line, relative to the checkout.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

fn cache_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("marina"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set: no cache directory")?;
    Ok(PathBuf::from(home).join(".cache/marina"))
}
