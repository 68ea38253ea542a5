//! Upstream's command tests of kubectl: shell functions that drive an unmodified kubectl and look
//! at what it prints.
//!
//! ```text
//! upstream's hack/, test/cmd/, … (a copy)
//!   driver.sh run_pod_tests ─► kubectl ─► kube-apiserver ─► etcd      each ours or upstream's
//!                                            ▲
//!                              kube-controller-manager
//! ```
//!
//! The scripts are unmodified, and each function runs in a shell of its own. After one that failed
//! all servers start anew with an empty store: what it left behind makes no other fail.

mod log;
mod plane;
mod suite;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;

use crate::conformance::{Board, Outcome, Recorder, State, progress_bar, say};
use crate::lab;
use crate::mix::{Mix, Origin, Part, StateFlags};
use crate::places::Places;
use crate::{accounting, network};
use plane::Plane;
use suite::Runner;
use tree::{Suite, Tree};

/// Run upstream's command tests of kubectl against any mix, and keep the score.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    parts: StateFlags,
    /// Run these only, comma-separated: functions of upstream's such as `run_pod_tests`, or
    /// `between` for what upstream checks between them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only those whose last run of this mix failed.
    #[arg(long)]
    failed: bool,
    /// Do not update the committed results: for trying something out.
    #[arg(long)]
    dry: bool,
    /// Where the scoreboard is.
    #[arg(long, default_value = "tests/conformance/kubectl")]
    board: PathBuf,
    /// Name of the run, 1 to 8 of a-z and 0-9; runs of different names go side by side.
    #[arg(long, default_value = "kubectl", value_parser = lab::parse_name)]
    name: String,
}

impl Args {
    /// The parts that these tests reach; the others count as what all of these are.
    fn mix(&self) -> Mix {
        let chosen = [
            (Part::Etcd, self.parts.etcd),
            (Part::ApiServer, self.parts.apiserver),
            (Part::ControllerManager, self.parts.controller_manager),
        ]
        .map(|(part, origin)| (part, origin.unwrap_or(self.parts.all)));
        if chosen.iter().all(|(_, origin)| *origin == Origin::Ours) {
            return Mix::all(Origin::Ours);
        }
        let upstream = Mix::all(Origin::Upstream);
        chosen.into_iter().fold(upstream, |mix, (part, origin)| mix.with(part, origin))
    }
}

/// Runs the tests. False when one that once passed fails now.
///
/// # Errors
/// The servers or a test cannot be started.
pub fn run(args: &Args, places: &Places) -> anyhow::Result<bool> {
    let mix = args.mix();
    let dir = places.cache.join(format!("run-{}", args.name));
    let _lock = lab::lock(&dir, &args.name)?;
    network::remove(&args.name)?;
    accounting::remove(&network::name(&args.name))?;
    lab::clear(&dir)?;
    let tree = Tree::make(&places.kubernetes_source()?, places, &dir.join("tree"))?;
    let mut recorder = Recorder::open(Board::kubectl(&args.board), &mix.name(), args.dry)?;
    let suites = chosen(tree.suites()?, args, &recorder)?;
    println!("{} tests to run, mix {}", suites.len(), mix.name());
    let mut plane = Plane::start(&args.name, mix, places, &dir, tree.path())?;
    let runner = Runner::new(&tree, &dir, places.cache.join("kubectl").join(mix.name()))?;
    let bar = progress_bar(suites.len(), 0);
    let mut outcomes = Vec::new();
    for (number, suite) in (1..).zip(&suites) {
        bar.set_message(suite.name());
        let outcome = runner.run(suite, &mut plane)?;
        recorder.record(std::slice::from_ref(&outcome))?;
        bar.inc(1);
        let failed = outcome.state == State::Failed;
        if failed {
            say(&bar, &format!("FAILED {}\n       {}", outcome.test, outcome.message));
        }
        if bar.is_hidden() {
            let (state, seconds) = (outcome.state.word(), outcome.seconds);
            println!("{number}/{} {state} {} ({seconds:.0} s)", suites.len(), suite.name());
        }
        outcomes.push(outcome);
        if failed && number < suites.len() {
            plane.renew()?;
        }
    }
    bar.finish_and_clear();
    println!("{}\nLogs: {}", table(&outcomes), runner.logs().display());
    Ok(recorder.finish())
}

fn chosen(mut suites: Vec<Suite>, args: &Args, recorder: &Recorder) -> anyhow::Result<Vec<Suite>> {
    let unknown = args.only.iter().find(|name| suites.iter().all(|s| s.function != **name));
    if let Some(name) = unknown {
        let known: Vec<_> = suites.iter().map(|suite| suite.function.as_str()).collect();
        bail!("there is no test {name}; there are {}", known.join(", "));
    }
    suites.retain(|suite| {
        (args.only.is_empty() || args.only.contains(&suite.function))
            && (!args.failed || recorder.failed_last(&suite.name()))
    });
    if suites.is_empty() {
        bail!("no test is left to run: see --only and --failed");
    }
    Ok(suites)
}

/// How many passed and failed of each script.
fn table(outcomes: &[Outcome]) -> String {
    let mut scripts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for outcome in outcomes {
        let script = outcome.test.split([']', '[']).nth(1).unwrap_or_default();
        for row in [script, "~all"] {
            let (passed, failed) = scripts.entry(row).or_default();
            *(if outcome.state == State::Failed { failed } else { passed }) += 1;
        }
    }
    let mut text = format!("{:<22}{:>8}{:>8}", "script", "passed", "failed");
    for (script, (passed, failed)) in scripts {
        text += &format!("\n{:<22}{passed:>8}{failed:>8}", script.trim_start_matches('~'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &[&str]) -> Args {
        Cli::parse_from(std::iter::once(&"x").chain(flags)).args
    }

    #[test]
    fn mixes_are_named_after_the_parts_that_these_tests_reach() {
        assert_eq!(args(&[]).mix().name(), "ours");
        assert_eq!(args(&["--all", "upstream"]).mix().name(), "upstream");
        assert_eq!(args(&["--all=upstream", "--apiserver=ours"]).mix().name(), "apiserver");
        assert_eq!(args(&["--etcd=upstream"]).mix().name(), "apiserver+controller-manager");
    }

    #[test]
    fn the_table_sums_up() {
        let outcome = |test: &str, state| Outcome {
            test: test.into(),
            state,
            seconds: 1.0,
            message: String::new(),
        };
        let outcomes = [
            outcome("[core] run_pod_tests", State::Passed),
            outcome("[core] run_rc_tests", State::Failed),
            outcome("[apps] run_rs_tests", State::Passed),
        ];
        let rows: Vec<String> = table(&outcomes)
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(rows, ["script passed failed", "apps 1 0", "core 1 1", "all 2 1"]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::open(Board::kubectl(dir.path()), "ours", true).unwrap();
        let suite = |name: &str| Suite { function: name.into(), script: "core".into() };
        let suites = vec![suite("run_a"), suite("run_b")];
        let left = chosen(suites.clone(), &args(&["--only", "run_b"]), &recorder).unwrap();
        assert_eq!(left, [suite("run_b")]);
        assert!(chosen(suites.clone(), &args(&["--only", "run_c"]), &recorder).is_err());
        assert!(chosen(suites, &args(&["--failed"]), &recorder).is_err());
    }
}
