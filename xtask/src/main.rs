//! One-command development: build, bake, start, test and measure Marina.
//!
//! Each command installs the Debian packages that it needs, says what it waits for, and leaves
//! nothing behind that `cargo xtask down` does not remove.

mod apt;
mod bench;
mod cargo;
mod down;
mod image;
mod kubectl;
mod lab;
mod paths;
mod process;
mod progress;
mod release;
mod schema;
mod simulate;
mod supervise;
mod test;
mod tidy;
mod up;
mod upstream;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Marina's development commands.
///
/// The first two that a newcomer needs: `cargo xtask up` starts everything on this machine and
/// prints how to sign in; `cargo xtask test` runs all tests.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start Marina on this machine: portal, provisioner controller and one host agent.
    ///
    /// Installs the Debian packages it needs, builds, bakes the node image, starts the processes
    /// and restarts those that die. Ctrl-C stops them; clusters keep running and are found again
    /// by the next start.
    Up(up::Args),
    /// Remove everything that `up` made: clusters, worker nodes, namespaces, files.
    Down {
        /// The data directory that `up` used.
        #[arg(long, default_value = ".marina")]
        data_dir: PathBuf,
        /// Also remove built images and downloaded tools from the user's cache directory.
        #[arg(long)]
        caches: bool,
    },
    /// Install what the tests need and run all of them.
    Test(test::Args),
    /// Build the worker image (root file system, disk, kernel, initrd) and print its directory.
    Image,
    /// Measure: the first cluster, or one of our parts side by side with upstream's.
    Bench(bench::Args),
    /// Build upstream's Kubernetes, etcd and containerd from Go modules, for comparison.
    Upstream,
    /// Start a two-node cluster from any mix of our parts and upstream's; Ctrl-C ends it.
    #[command(disable_help_flag = true)]
    Lab {
        /// See `cargo xtask lab --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run upstream's end-to-end suite against any mix and keep the score.
    #[command(disable_help_flag = true)]
    Conformance {
        /// See `cargo xtask conformance --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run upstream's integration suites against either etcd, and keep the score.
    #[command(disable_help_flag = true)]
    Integration {
        /// See `cargo xtask integration --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run upstream's command tests of kubectl against any mix, and keep the score.
    #[command(disable_help_flag = true)]
    KubectlTests {
        /// See `cargo xtask kubectl-tests --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run etcd clusters in simulated time, with everything that can go wrong.
    #[command(disable_help_flag = true)]
    Simulate {
        /// See `cargo xtask simulate --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Put known bugs of etcd servers back into ours, and see whether the simulation finds them.
    Mutations {
        /// Only those whose name contains this.
        only: Option<String>,
    },
    /// Check the rules of the house: file and function lengths, crate layers, module docs.
    Tidy,
    /// Regenerate the table of Kubernetes kinds from packaged sources.
    Schema,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let paths = Paths::find()?;
    match command {
        Command::Up(args) => up::run(&paths, &args),
        Command::Down { data_dir, caches } => down::run(&paths, &data_dir, caches),
        Command::Test(args) => test::run(&paths, &args),
        Command::Image => {
            let image = image::build(&paths)?;
            println!("{}", image.display());
            Ok(())
        }
        Command::Bench(args) => bench::run(&paths, &args),
        Command::Upstream => upstream::run(&paths),
        Command::Lab { args } => lab::run(&paths, "up", &args),
        Command::Conformance { args } => lab::run(&paths, "conformance", &args),
        Command::Integration { args } => lab::run(&paths, "integration", &args),
        Command::KubectlTests { args } => lab::run(&paths, lab::KUBECTL_TESTS, &args),
        Command::Simulate { args } => simulate::run(&paths, &args),
        Command::Mutations { only } => simulate::mutations(&paths, only.as_deref()),
        Command::Tidy => tidy::run(&paths),
        Command::Schema => schema::run(),
    }
}
