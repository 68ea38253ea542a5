//! `cargo xtask simulate`: etcd clusters in simulated time.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use crate::cargo::cargo;
use crate::paths::Paths;
use crate::process::run_shown;

/// Its own: as quick as a release, but panics can be caught.
const PROFILE: &str = "simulation";
/// Seconds after which `cargo xtask test` begins no more runs.
const SHORT: &str = "60";

/// Builds it, and passes `args` on.
pub fn run(paths: &Paths, args: &[OsString]) -> anyhow::Result<()> {
    run_shown(cargo(paths).args(["build", "--profile", PROFILE, "--package", "simulation"]))?;
    let program = paths.target.join(PROFILE).join("marina-simulate");
    Err(Command::new(program).args(args).exec()).context("marina-simulate cannot be started")
}

/// A few runs of what has been built for development, always with the same seeds.
pub fn shortly(paths: &Paths) -> anyhow::Result<()> {
    let mut simulate = Command::new(paths.bin("marina-simulate"));
    simulate.args(["--runs", "1000", "--seconds", "60", "--stop-after", SHORT]);
    run_shown(&mut simulate).context("`marina-simulate --help` says how to look into a seed")
}
