//! `cargo xtask bench`: the first cluster in numbers.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::cargo;
use crate::paths::Paths;
use crate::process::run_shown;
use crate::{apt, image, kubectl};

/// Builds, measures, and prints a table for `tests/bench/RESULTS.md`.
pub fn run(paths: &Paths, rounds: u32) -> anyhow::Result<()> {
    if !apt::is_root() {
        bail!("the benchmark makes network namespaces and mounts: run it as root");
    }
    apt::ensure(paths, apt::RUN)?;
    let kubectl = kubectl::ensure_kubectl(paths)?;
    run_shown(cargo(paths).args(["build", "--workspace", "--quiet"]))?;
    image::bake(paths)?;
    let cpu = fs::read_to_string("/proc/cpuinfo").context("no /proc/cpuinfo")?;
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores of {model}, {rounds} rounds, development profile\n");
    let mut bench = Command::new(paths.bin("first-cluster-bench"));
    bench.arg(rounds.to_string());
    bench.env("MARINA_BIN_DIR", paths.bin_dir()).env("KUBECTL", kubectl);
    bench.env("CARGO_TARGET_DIR", &paths.target);
    run_shown(&mut bench)
}
