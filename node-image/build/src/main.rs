//! `marina-image build`: bakes the node image and prints one line per step.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use node_image::{Options, build};

/// Builds the image that Marina's workers run.
#[derive(Parser)]
#[command(name = "marina-image", version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the image, or reuse it when nothing that goes into it has changed.
    Build {
        /// Directory with kubelet, kube-proxy, node-agent, node-init, pause, cluster-dns and demo.
        #[arg(long)]
        bin_dir: PathBuf,
        /// Where base systems and finished images are kept between runs.
        #[arg(long)]
        cache_dir: PathBuf,
        /// The link to make or to switch to the finished image.
        #[arg(long)]
        out: PathBuf,
        /// Debian mirror; without it the machine's own apt sources say where packages come from.
        #[arg(long)]
        mirror: Option<String>,
        /// Fetch the packages again even if the list of packages is unchanged.
        #[arg(long)]
        refresh_base: bool,
    },
}

fn main() -> ExitCode {
    let Command::Build { bin_dir, cache_dir, out, mirror, refresh_base } = Flags::parse().command;
    let started = std::time::Instant::now();
    let options = Options { bin_dir, cache_dir, out, mirror, refresh_base };
    let result = build(&options, &mut |step| {
        println!("[{:6.1}s] {step}", started.elapsed().as_secs_f64());
    });
    match result {
        Ok(image) => {
            println!("{}", image.dir.display());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("marina-image: {e:#}");
            ExitCode::FAILURE
        }
    }
}
