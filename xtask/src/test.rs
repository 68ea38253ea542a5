//! `cargo xtask test`: everything that has to hold, from formatting to clusters of real workers.

use std::time::Instant;

use anyhow::{Context, bail};

use crate::cargo::cargo;
use crate::paths::Paths;
use crate::process::run_shown;
use crate::{apt, image, kubectl, lab, simulate, tidy, upstream};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Only the crates' own tests: no image, no clusters.
    #[arg(long)]
    quick: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Runs all tests, the quickest to fail first.
pub fn run(paths: &Paths, args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    if !apt::is_root() {
        bail!("the tests make network namespaces and mounts: run them as root");
    }
    apt::ensure(paths, apt::RUN)?;
    apt::ensure(paths, apt::TEST)?;
    let kubectl = kubectl::ensure_kubectl(paths)?;

    heading("Formatting");
    run_shown(cargo(paths).args(["fmt", "--all", "--check"]))
        .context("run `cargo fmt --all` and look at what it changes")?;
    heading("Rules of the house");
    tidy::run(paths)?;

    heading("Building");
    run_shown(cargo(paths).args(["build", "--workspace", "--quiet"]))?;
    let image = if args.quick { None } else { Some(image::bake(paths)?) };

    heading("Crates' own tests");
    let mut crates = cargo(paths);
    crates.args(["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"]);
    crates.env("MARINA_BIN_DIR", paths.bin_dir()).env("KUBECTL", &kubectl);
    if let Some(image) = &image {
        crates.env("MARINA_IMAGE_DIR", image);
    }
    crates.arg("--").args(&args.filter);
    run_shown(&mut crates)?;

    if args.filter.is_none() {
        heading("etcd in simulated time");
        simulate::shortly(paths)?;
    }

    if let Some(image) = &image {
        heading("Clusters, end to end");
        let mut e2e = cargo(paths);
        // The whole workspace: another choice of packages would be another choice of features.
        e2e.args(["test", "--workspace", "--no-fail-fast"]);
        e2e.args([
            "--test",
            "console_in_browser",
            "--test",
            "qemu_workers",
            "--test",
            "sandbox_workers",
        ]);
        e2e.env("MARINA_BIN_DIR", paths.bin_dir()).env("CARGO_TARGET_DIR", &paths.target);
        e2e.env("MARINA_IMAGE_DIR", image).env("KUBECTL", &kubectl);
        e2e.args(["--", "--test-threads", "1", "--nocapture"]).args(&args.filter);
        run_shown(&mut e2e)?;
    }
    match (&image, upstream::is_complete(paths)?) {
        (None, _) => {}
        (Some(_), true) => mixes(paths, args)?,
        (Some(_), false) => println!(
            "\n== Mixes with upstream's parts\nskipped: upstream's programs are not built \
             (`cargo xtask upstream` builds them, once)"
        ),
    }
    println!("all green after {} s", started.elapsed().as_secs());
    Ok(())
}

/// Each of our parts alone among upstream's, and all of ours together.
fn mixes(paths: &Paths, args: &Args) -> anyhow::Result<()> {
    heading("Mixes with upstream's parts");
    let mut mixes = cargo(paths);
    mixes.args(["test", "--workspace", "--test", "mixes"]);
    lab::environment(paths, &mut mixes);
    mixes.args(["--", "--nocapture"]).args(&args.filter);
    run_shown(&mut mixes)
}

fn heading(text: &str) {
    println!("\n== {text}");
}
