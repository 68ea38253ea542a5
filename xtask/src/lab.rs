//! `cargo xtask lab`, `conformance`, `integration` and `kubectl-tests`: prepares what the lab needs,
//! then becomes its program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};

use crate::cargo::cargo;
use crate::paths::Paths;
use crate::process::run_shown;
use crate::{apt, image, upstream};

/// The lab's command that runs upstream's tests of kubectl.
pub const KUBECTL_TESTS: &str = "kubectl-tests";

/// Runs `marina-lab <command> <args>`; its `--help` is the manual.
pub fn run(paths: &Paths, command: &str, args: &[OsString]) -> anyhow::Result<()> {
    let asks_for_help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    if !asks_for_help {
        if !apt::is_root() {
            bail!("the lab makes network namespaces and mounts: run it as root");
        }
        apt::ensure(paths, apt::RUN)?;
        apt::ensure(paths, apt::TEST)?;
        upstream::build(paths)?;
        run_shown(cargo(paths).args(["build", "--workspace", "--quiet"]))?;
        // These need no nodes.
        if command != KUBECTL_TESTS {
            image::bake(paths)?;
        }
    } else {
        run_shown(cargo(paths).args(["build", "--package", "lab", "--quiet"]))?;
    }
    let mut lab = Command::new(paths.bin("marina-lab"));
    lab.arg(command).args(args).current_dir(&paths.root);
    environment(paths, &mut lab);
    if command == KUBECTL_TESTS && !asks_for_help {
        lab.env("MARINA_KUBERNETES_SOURCE", upstream::kubernetes_source(paths)?);
    }
    Err(lab.exec()).context("marina-lab cannot be started")
}

/// Tells a program of the lab where things are.
pub fn environment(paths: &Paths, command: &mut Command) {
    command.env("MARINA_BIN_DIR", paths.bin_dir());
    command.env("MARINA_UPSTREAM_DIR", upstream::dir(paths));
    command.env("MARINA_IMAGE_DIR", paths.cache.join("image"));
    command.env("MARINA_LAB_DIR", paths.cache.join("lab"));
}
