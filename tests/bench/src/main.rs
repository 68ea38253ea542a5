//! `marina-bench <subject>`: see the library's documentation. `cargo xtask bench` starts it.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use bench::rounds::Entry;
use bench::{Bench, machine, results, rounds, subjects};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use lab::places::Places;

/// Measures ours against upstream's, side by side, and prints tables.
#[derive(Parser)]
#[command(name = "marina-bench")]
struct Flags {
    /// What to measure.
    #[arg(value_parser = PossibleValuesParser::new(subjects::ALL.iter().map(|entry| entry.name)))]
    subject: String,
    /// A smaller run, which ends within two minutes.
    #[arg(long)]
    quick: bool,
    /// Turns of each side per scene [default: 3; 1 in a quick run].
    #[arg(long)]
    rounds: Option<usize>,
    /// Only scenes whose headline contains this.
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Put the result into tests/bench/RESULTS.md in place of the subject's last one, after each scene;
    /// with --only, in place of the same scenes.
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    match start(&Flags::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("marina-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> anyhow::Result<ExitCode> {
    let found = subjects::ALL.iter().find(|entry| entry.name == flags.subject);
    let entry = found.context("an unknown subject")?;
    let places = Places::from_env()?;
    let release = places.ours.file_name().is_some_and(|name| name == "release");
    ensure!(release || !flags.record, "only release builds are recorded");
    if !release {
        eprintln!("Not a release build: the numbers of ours mean nothing.");
    }
    let processors = machine::Processors::choose()?;
    // Before anything is started, so that all inherit both.
    machine::stay_on(processors.client)?;
    machine::enter_own_network()?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let circumstances = results::Circumstances::now(entry, &places, processors, &args);
    let bench = Bench::new(flags.quick, places, processors)?;
    let _context = bench.enter();
    run(entry, &bench, flags, &circumstances)
}

fn run(
    entry: &Entry,
    bench: &Bench,
    flags: &Flags,
    circumstances: &results::Circumstances,
) -> anyhow::Result<ExitCode> {
    let count = flags.rounds.unwrap_or(bench.either(3, 1));
    let outcomes = rounds::run(entry, bench, count, &flags.only, |so_far| {
        // A run takes long: what is interrupted keeps what it has.
        let section = results::markdown(entry, circumstances, so_far);
        if flags.record { results::record(entry.name, &section, true) } else { Ok(()) }
    })?;
    let section = results::markdown(entry, circumstances, &outcomes);
    println!("{section}");
    let path = bench.dir().join(format!("{}.json", entry.name));
    let numbers = serde_json::to_string_pretty(&results::json(entry, circumstances, &outcomes))?;
    fs::write(&path, numbers).with_context(|| format!("writing {}", path.display()))?;
    eprintln!(
        "Every number is in {}, logs are in {}.",
        path.display(),
        bench.dir().join("logs").display()
    );
    if flags.record {
        results::record(entry.name, &section, !flags.only.is_empty())?;
    }
    let well = outcomes.iter().all(|outcome| outcome.failures.is_empty());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
