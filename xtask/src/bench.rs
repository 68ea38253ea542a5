//! `cargo xtask bench`: the first cluster in numbers, and our parts beside upstream's.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::{cargo, release_dir};
use crate::paths::Paths;
use crate::process::run_shown;
use crate::{apt, image, kubectl, lab, upstream};

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// `first-cluster` (times to ready and idle memory of a whole region), or a part beside
    /// upstream's: etcd, apiserver, scheduler, kubelet, proxy, control-plane.
    subject: String,
    /// For a part: `--quick`, `--record`, and what `cargo xtask bench <part> -- --help` lists.
    /// For first-cluster: the number of rounds (3).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds, measures, and prints tables for `tests/bench/RESULTS.md`.
pub fn run(paths: &Paths, args: &Args) -> anyhow::Result<()> {
    if !apt::is_root() {
        bail!("the benchmarks make network namespaces and mounts: run them as root");
    }
    apt::ensure(paths, apt::RUN)?;
    apt::ensure(paths, apt::TEST)?;
    if args.subject == "first-cluster" {
        let rounds = args.args.first().map_or(Some("3"), |rounds| rounds.to_str());
        let rounds = rounds.and_then(|rounds| rounds.parse().ok());
        return first_cluster(paths, rounds.context("the number of rounds must be a number")?);
    }
    upstream::build(paths)?;
    // The whole workspace: another choice of packages would be another choice of features.
    run_shown(cargo(paths).args(["build", "--workspace", "--release"]))?;
    let mut bench = Command::new(release_dir(paths).join("marina-bench"));
    bench.arg(&args.subject).args(&args.args).current_dir(&paths.root);
    lab::environment(paths, &mut bench);
    bench.env("MARINA_BIN_DIR", release_dir(paths));
    Err(bench.exec()).context("marina-bench cannot be started")
}

fn first_cluster(paths: &Paths, rounds: u32) -> anyhow::Result<()> {
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
