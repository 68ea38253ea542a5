//! `marina-lab up | conformance | integration | kubectl-tests`: started by `cargo xtask` (`lab`,
//! `conformance`, `integration`, `kubectl-tests`).

use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use lab::conformance;
use lab::integration;
use lab::kubectl;
use lab::lab::{Lab, Options, parse_name};
use lab::mix::MixFlags;
use lab::nodes;
use lab::places::Places;
use nix::sys::signal::{SigSet, Signal};

/// Clusters of any mix of our parts and upstream's.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a two-node cluster and print its kubeconfig; Ctrl-C ends it and removes everything.
    #[command(name = "up", display_name = "lab")]
    Up(Up),
    /// Run upstream's end-to-end suite against a cluster, and keep the score.
    Conformance(conformance::Args),
    /// Run upstream's integration suites against either etcd, and keep the score.
    Integration(integration::Args),
    /// Run upstream's command tests of kubectl against any mix, and keep the score.
    KubectlTests(kubectl::Args),
}

#[derive(clap::Args)]
struct Up {
    #[command(flatten)]
    mix: MixFlags,
    /// Name of the lab, 1 to 8 of a-z and 0-9; labs of different names run side by side.
    #[arg(long, default_value = "lab", value_parser = parse_name)]
    name: String,
    /// Number of nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=9))]
    nodes: u8,
    /// Run this command with KUBECONFIG set instead of waiting for Ctrl-C, and end with its status.
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread exists, so that all of them leave these signals to the one that waits.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let blocked = signals.thread_block().context("blocking signals");
    match blocked.and_then(|()| run(cli.command, &signals)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(action: Action, signals: &SigSet) -> anyhow::Result<ExitCode> {
    let places = Places::from_env()?;
    match action {
        Action::Up(up) => self::up(&up, &places, signals),
        Action::Conformance(args) => {
            interrupt("the same command goes on where this run stops", signals);
            let good = conformance::run(&args, &places)?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Integration(args) => {
            let good = integration::run(&args, &places)?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::KubectlTests(args) => {
            interrupt("the results of the tests that have ended are kept", signals);
            let good = kubectl::run(&args, &places)?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Ends the suite that runs, and so this program, at the first signal.
fn interrupt(what_now: &'static str, signals: &SigSet) {
    let signals = *signals;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("Interrupted: {what_now}.");
            if !conformance::interrupt() {
                // The next lab of this name removes what is there.
                std::process::exit(130);
            }
        }
    });
}

fn up(up: &Up, places: &Places, signals: &SigSet) -> anyhow::Result<ExitCode> {
    let options = Options {
        name: up.name.clone(),
        mix: up.mix.mix(),
        nodes: up.nodes,
        max_pods: nodes::MAX_PODS,
    };
    let started = Instant::now();
    let mut lab = Lab::start(&options, places, &mut |step| eprintln!("  {step}"))?;
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{} nodes of mix {} are Ready after {seconds:.1} s", up.nodes, options.mix.name());
    if !up.command.is_empty() {
        let status = Command::new(&up.command[0])
            .args(&up.command[1..])
            .env("KUBECONFIG", lab.kubeconfig())
            .status()
            .with_context(|| format!("starting {}", up.command[0]))?;
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Ok(ExitCode::from(code));
    }
    println!("export KUBECONFIG={}", lab.kubeconfig().display());
    eprintln!("Logs: {}. Ctrl-C ends the lab.", lab.logs().display());
    let (sender, told) = mpsc::channel();
    let signals = *signals;
    std::thread::spawn(move || sender.send(signals.wait()));
    while told.recv_timeout(Duration::from_secs(1)).is_err() {
        lab.check()?;
    }
    eprintln!("Removing the lab.");
    Ok(ExitCode::SUCCESS)
}
