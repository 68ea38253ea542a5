//! `cargo xtask simulate`: etcd clusters in simulated time. `cargo xtask mutations`: whether it finds
//! what it should.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::cargo;
use crate::paths::Paths;
use crate::process::run_shown;

/// Its own: as quick as a release, but panics can be caught.
const PROFILE: &str = "simulation";
/// Seconds after which `cargo xtask test` begins no more runs.
const SHORT: &str = "60";
/// Seconds in which a mutation should be found.
const LONG: &str = "120";

/// Builds it, and passes `args` on.
pub fn run(paths: &Paths, args: &[OsString]) -> anyhow::Result<()> {
    run_shown(cargo(paths).args(["build", "--profile", PROFILE, "--package", "simulation"]))?;
    let program = paths.target.join(PROFILE).join("marina-simulate");
    Err(Command::new(program).args(args).exec()).context("marina-simulate cannot be started")
}

/// A few runs of what has been built for development, always with the same seeds.
pub fn shortly(paths: &Paths) -> anyhow::Result<()> {
    let mut simulate = Command::new(paths.bin("marina-simulate"));
    simulate.args(["--runs", "10", "--seconds", "60", "--stop-after", SHORT]);
    run_shown(&mut simulate).context("`marina-simulate --help` says how to look into a seed")
}

/// Puts known bugs back, one at a time, into a copy of what is committed, and looks whether the
/// simulation finds them.
pub fn mutations(paths: &Paths, only: Option<&str>) -> anyhow::Result<()> {
    let copy = paths.cache.join("mutations");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    let mut clone = Command::new("git");
    run_shown(clone.args(["clone", "--quiet"]).arg(&paths.root).arg(&copy))?;
    let mut unseen = Vec::new();
    for patch in patches(&copy)? {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let about = fs::read_to_string(&patch)?;
        println!("\n== {name}: {}", about.lines().next().unwrap_or_default());
        if !is_found(paths, &copy, &patch)? {
            println!("not found");
            unseen.push(name);
        }
    }
    ensure!(unseen.is_empty(), "the simulation does not find {}", unseen.join(", "));
    Ok(())
}

fn patches(copy: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let dir = copy.join("tests/simulation/mutations");
    let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut patches: Vec<_> =
        entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    patches.sort();
    if patches.is_empty() {
        bail!("there is nothing in {}", dir.display());
    }
    Ok(patches)
}

fn is_found(paths: &Paths, copy: &Path, patch: &Path) -> anyhow::Result<bool> {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(copy);
        git
    };
    run_shown(&mut git(&["checkout", "--quiet", "--", "."]))?;
    run_shown(git(&["apply"]).arg(patch))?;
    let target = paths.cache.join("mutations-target");
    let mut build = cargo(paths);
    build.args(["build", "--quiet", "--profile", PROFILE, "--package", "simulation"]);
    run_shown(build.current_dir(copy).env("CARGO_TARGET_DIR", &target))?;
    let mut simulate = Command::new(target.join(PROFILE).join("marina-simulate"));
    simulate.args(["--runs", "1000", "--first", "--stop-after", LONG]);
    let status = simulate.status().context("marina-simulate cannot be started")?;
    Ok(!status.success())
}
