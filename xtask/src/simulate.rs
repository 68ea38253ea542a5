//! `cargo xtask simulate`: etcd clusters in simulated time. `cargo xtask mutations`: whether it finds
//! what it should.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
/// simulation finds them where it finds nothing without them.
pub fn mutations(paths: &Paths, only: Option<&str>) -> anyhow::Result<()> {
    let dir = paths.cache.join("mutations");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let copy = dir.join("marina");
    let mut clone = Command::new("git");
    run_shown(clone.args(["clone", "--quiet"]).arg(&paths.root).arg(&copy))?;
    let sound = build(paths, &copy, &dir.join("sound"))?;
    let mut unseen = Vec::new();
    for patch in patches(&copy)? {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let about = fs::read_to_string(&patch)?;
        println!("\n== {name}: {}", about.lines().next().unwrap_or_default());
        git(&copy, &["checkout", "--quiet", "--", "."])?;
        git(&copy, &["apply", &patch.to_string_lossy()])?;
        let mutant = build(paths, &copy, &dir.join("mutant"))?;
        let seeds = violations(&mutant, &["--runs", "1000", "--first", "--stop-after", LONG])?;
        for seed in &seeds {
            ensure!(
                violations(&sound, &["--seed", seed, "--runs", "1"])?.is_empty(),
                "seed {seed} finds something without any mutation, too"
            );
        }
        if seeds.is_empty() {
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

fn git(copy: &Path, args: &[&str]) -> anyhow::Result<()> {
    run_shown(Command::new("git").args(args).current_dir(copy))
}

/// Builds the simulation of a copy, and puts it to `program`.
fn build(paths: &Paths, copy: &Path, program: &Path) -> anyhow::Result<PathBuf> {
    let mut build = cargo(paths);
    build.args(["build", "--quiet", "--profile", PROFILE, "--package", "simulation"]);
    run_shown(build.current_dir(copy).env("CARGO_TARGET_DIR", &paths.target))?;
    let built = paths.target.join(PROFILE).join("marina-simulate");
    fs::copy(&built, program).with_context(|| program.display().to_string())?;
    Ok(program.to_owned())
}

/// The seeds with which the simulation found something.
fn violations(program: &Path, args: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut simulate = Command::new(program);
    let output = simulate.args(args).stderr(Stdio::inherit()).output();
    let output = output.context("marina-simulate cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let seeds: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("seed ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    ensure!(output.status.success() == seeds.is_empty(), "the simulation: {}", output.status);
    Ok(seeds)
}
