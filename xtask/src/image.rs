//! The worker image, baked by the `marina-image` executable into the user's cache directory.

use std::path::PathBuf;
use std::process::Command;

use crate::paths::Paths;
use crate::process::run_logged;
use crate::progress::Step;
use crate::{apt, cargo};

/// Builds what the image holds, bakes it if anything changed, and returns its directory.
pub fn build(paths: &Paths) -> anyhow::Result<PathBuf> {
    apt::ensure(paths, apt::RUN)?;
    cargo::build_workspace(paths)?;
    bake(paths)
}

/// Bakes the image from executables that are already built.
pub fn bake(paths: &Paths) -> anyhow::Result<PathBuf> {
    let out = paths.cache.join("image");
    let step = Step::start("Baking the node image");
    let mut command = Command::new(paths.bin("marina-image"));
    command.arg("build");
    command.arg("--bin-dir").arg(paths.bin_dir());
    command.arg("--cache-dir").arg(&paths.cache);
    command.arg("--out").arg(&out);
    run_logged(&step, &mut command, &paths.cache.join("logs/image.log"))?;
    step.done();
    Ok(out)
}
