//! Building the workspace's executables.

use std::path::PathBuf;
use std::process::Command;

use crate::paths::Paths;
use crate::process::run_shown;

/// Builds everything, whatever is needed of it: another choice of packages would be another choice
/// of their dependencies' features, and building those again. Cargo shows its own progress.
pub fn build_workspace(paths: &Paths) -> anyhow::Result<()> {
    let mut command = cargo(paths);
    command.args(["build", "--workspace", "--quiet"]);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        command.env("CARGO_TERM_PROGRESS_WHEN", "auto").env("CARGO_TERM_QUIET", "false");
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
