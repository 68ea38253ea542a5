//! `marina-simulate`: whole etcd clusters, each in one thread of one process, in simulated time.
//!
//! Everything that a run does follows from its seed: [`interpose`] takes the host's randomness and
//! clock away, each process is a [`host`] with a runtime whose time stands until it is let go on, the
//! [`net`] delivers and the [`disk`] forgets. The members are the real server. [`run`] puts it together,
//! [`check`] judges.

mod check;
mod clients;
mod cluster;
mod disk;
mod history;
mod host;
mod interpose;
mod member;
mod model;
mod net;
mod operator;
mod panics;
mod replay;
mod run;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use run::Report;

/// Runs etcd clusters in simulated time, with everything that can go wrong, and checks that nothing
/// was lost. The exit status is 1 when a run found a violation.
#[derive(Parser)]
struct Args {
    /// First seed. A seed reproduces its run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 20)]
    runs: u64,
    /// Begin no more runs after this many seconds.
    #[arg(long)]
    stop_after: Option<u64>,
    /// Begin no more runs after one that found a violation.
    #[arg(long)]
    first: bool,
    /// Simulated seconds of trouble per run, before everything is mended.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Runs at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Run each seed twice, and compare.
    #[arg(long)]
    twice: bool,
    /// Write what clients saw to this file; for a single run.
    #[arg(long)]
    story: Option<std::path::PathBuf>,
    /// Do one run, and print the report as JSON.
    #[arg(long, hide = true)]
    child: bool,
    /// What members log, to standard error: a filter such as `etcd=debug`.
    #[arg(long)]
    log: Option<String>,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    failed: Vec<u64>,
    time: Duration,
    answered: usize,
    unknown: usize,
    revisions: usize,
    watches: usize,
    leases: usize,
    changes: u64,
    faults: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        logs.with_ansi(false).init();
    }
    if args.child {
        panics::note_all();
        return match child(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e:#}");
                ExitCode::FAILURE
            }
        };
    }
    let started = Instant::now();
    let next = AtomicU64::new(args.seed);
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = args.stop_after.is_some_and(|s| started.elapsed().as_secs() >= s);
                    let found = args.first && !sum.lock().expect("no panic").failed.is_empty();
                    if seed >= args.seed + args.runs || late || found {
                        break;
                    }
                    one(&args, seed, &sum);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no panic while held");
    print(&sum, started.elapsed());
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In a process of its own: the libraries count things up for the whole process.
fn in_a_process(args: &Args, seed: u64) -> anyhow::Result<Report> {
    let mut child = Command::new(std::env::current_exe()?);
    child.arg("--child").args(["--seed", &seed.to_string()]);
    child.args(["--seconds", &args.seconds.to_string()]);
    if let Some(filter) = &args.log {
        child.args(["--log", filter]);
    }
    if let Some(path) = &args.story {
        child.arg("--story").arg(path);
    }
    let output = child.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the simulation has ended: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn child(args: &Args) -> anyhow::Result<()> {
    let (seed, time) = (args.seed, Duration::from_secs(args.seconds));
    // A thread that has done nothing yet: whether there are logs makes no difference to it.
    let ran = std::thread::spawn(move || {
        std::panic::catch_unwind(|| run::run(seed, time)).map_err(|_| panics::take())
    });
    let ran = ran.join().unwrap_or(Err(None));
    let (report, story) = ran.map_err(|panic| {
        anyhow!("the simulation: {}", panic.unwrap_or_else(|| "a panic".into()))
    })?;
    if let Some(path) = &args.story {
        std::fs::write(path, story.join("\n")).with_context(|| path.display().to_string())?;
    }
    serde_json::to_writer(std::io::stdout(), &report)?;
    Ok(())
}

fn one(args: &Args, seed: u64, sum: &Mutex<Sum>) {
    let failed =
        |e: anyhow::Error| Report { violations: vec![format!("{e:#}")], ..Report::default() };
    let mut report = in_a_process(args, seed).unwrap_or_else(failed);
    if args.twice {
        let again = in_a_process(args, seed).unwrap_or_else(failed);
        if again.fingerprint != report.fingerprint {
            report.violations.push("a second run was different".into());
        }
    }
    let mut sum = sum.lock().expect("no panic while held");
    sum.runs += 1;
    sum.time += report.time;
    sum.answered += report.answered;
    sum.unknown += report.unknown;
    sum.revisions += report.revisions;
    sum.watches += report.watches;
    sum.leases += report.leases;
    sum.changes += report.changes;
    for (fault, count) in report.faults {
        *sum.faults.entry(fault).or_default() += count;
    }
    if report.violations.is_empty() {
        return;
    }
    sum.failed.push(seed);
    println!("seed {seed} (marina-simulate --seed {seed} --runs 1 --seconds {}):", args.seconds);
    for violation in report.violations.iter().take(5) {
        println!("  {violation}");
    }
}

fn print(sum: &Sum, took: Duration) {
    let hours = sum.time.as_secs_f64() / 3600.0;
    println!(
        "{} runs, {hours:.2} simulated hours in {:.1} s: {:.0} hours per hour",
        sum.runs,
        took.as_secs_f64(),
        hours / (took.as_secs_f64() / 3600.0)
    );
    println!(
        "{} answers, {} unknown outcomes, {} revisions, {} watches, {} leases, {} changes of the \
         membership",
        sum.answered, sum.unknown, sum.revisions, sum.watches, sum.leases, sum.changes
    );
    let faults: Vec<String> = sum.faults.iter().map(|(name, n)| format!("{n} {name}")).collect();
    println!("faults: {}", faults.join(", "));
    match &sum.failed[..] {
        [] => println!("no violation"),
        failed => println!("violations with seeds {failed:?}"),
    }
}
