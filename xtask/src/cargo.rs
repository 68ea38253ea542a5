//! Building the workspace's executables.

use std::path::PathBuf;
use std::process::Command;

use crate::paths::Paths;
use crate::process::run_shown;

/// Packages whose executables a running Marina consists of.
pub const PRODUCT: &[&str] = &[
    "cluster-dns",
    "demo",
    "driver-qemu",
    "driver-sandbox",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "marina",
    "node-agent",
    "node-image",
    "node-init",
    "pause",
    "portal",
    "provisioner",
];

/// Builds the product. Cargo shows its own progress.
pub fn build_product(paths: &Paths) -> anyhow::Result<()> {
    let mut command = cargo(paths);
    command.args(["build", "--quiet"]);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        command.env("CARGO_TERM_PROGRESS_WHEN", "auto").env("CARGO_TERM_QUIET", "false");
    }
    for package in PRODUCT {
        command.args(["--package", package]);
    }
    run_shown(&mut command)
}

/// The directory of executables that were built with optimisation.
pub fn release_dir(paths: &Paths) -> PathBuf {
    paths.target.join("release")
}

/// Cargo, in the checkout.
pub fn cargo(paths: &Paths) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&paths.root).env("CARGO_TARGET_DIR", &paths.target);
    command
}
