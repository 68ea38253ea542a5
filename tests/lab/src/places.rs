//! Where executables, images and the lab's own files are.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::mix::{Origin, Part};

/// What `cargo xtask` tells a lab by environment variables.
#[derive(Clone, Debug)]
pub struct Places {
    /// Our executables (`MARINA_BIN_DIR`).
    pub ours: PathBuf,
    /// Upstream's (`MARINA_UPSTREAM_DIR`), as `cargo xtask upstream` builds them.
    pub upstream: PathBuf,
    /// The baked node image (`MARINA_IMAGE_DIR`).
    pub image: PathBuf,
    /// What is kept between runs (`MARINA_LAB_DIR`).
    pub cache: PathBuf,
}

impl Places {
    /// Reads the environment.
    ///
    /// # Errors
    /// A variable is missing: the program was not started by `cargo xtask`.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self {
            ours: dir_of("MARINA_BIN_DIR")?,
            upstream: dir_of("MARINA_UPSTREAM_DIR")?,
            image: dir_of("MARINA_IMAGE_DIR")?,
            cache: dir_of("MARINA_LAB_DIR")?,
        })
    }

    /// The executable of a part.
    ///
    /// # Errors
    /// It is not built.
    pub fn executable(&self, part: Part, origin: Origin) -> anyhow::Result<PathBuf> {
        match origin {
            Origin::Ours => built(&self.ours, part.executable(), "cargo build --workspace"),
            Origin::Upstream => self.upstream_tool(part.executable()),
        }
    }

    /// One of upstream's executables that is no part of a cluster, such as `kubectl` or `e2e.test`.
    ///
    /// # Errors
    /// It is not built.
    pub fn upstream_tool(&self, name: &str) -> anyhow::Result<PathBuf> {
        built(&self.upstream, name, "cargo xtask upstream")
    }

    /// The source of upstream's Kubernetes, of the version that is pinned
    /// (`MARINA_KUBERNETES_SOURCE`).
    ///
    /// # Errors
    /// The variable is missing.
    pub fn kubernetes_source(&self) -> anyhow::Result<PathBuf> {
        dir_of("MARINA_KUBERNETES_SOURCE")
    }
}

fn dir_of(name: &str) -> anyhow::Result<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let hint = || format!("{name} is not set: start this with `cargo xtask`");
    value.map(PathBuf::from).with_context(hint)
}

fn built(dir: &Path, name: &str, how: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} is not there: run `{how}`", path.display());
    }
    Ok(path)
}
