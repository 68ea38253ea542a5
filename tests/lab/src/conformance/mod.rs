//! `cargo xtask conformance`: upstream's suite against any mix, in chunks, with a memory.
//!
//! A run is a list of tests. What is done of it stands in a progress file beside the reports, so an
//! interrupted run goes on where it stopped; what a chunk found is recorded when the chunk ends.

mod results;
mod scoreboard;
mod suite;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::lab::{Lab, Options};
use crate::mix::{Mix, MixFlags, Part};
use crate::nodes::MAX_PODS;
use crate::places::Places;
use results::Results;
pub use scoreboard::Board;
use suite::Chunk;
pub use suite::{Outcome, RUNNING, State, interrupt};

/// Run upstream's end-to-end suite against a cluster of any mix, and keep the score.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    mix: MixFlags,
    /// This part of ours in an otherwise upstream cluster, on the tests that lean on it.
    #[arg(long, value_enum, value_name = "PART", conflicts_with_all = ["all", "focus"])]
    alone: Option<Part>,
    /// Run the tests whose name matches (Go regular expression).
    #[arg(long, default_value = r"\[Conformance\]", value_name = "REGEX")]
    focus: String,
    /// Leave out the tests whose name matches.
    #[arg(long, default_value = "", value_name = "REGEX")]
    skip: String,
    /// Only part i of n equal parts of the tests, such as 1/3.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<(usize, usize)>,
    /// Tests that run at the same time; those marked [Serial] always run alone.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Tests between two savings of the results.
    #[arg(long, default_value_t = 24)]
    chunk: usize,
    /// Forget an interrupted run of the same tests and begin again.
    #[arg(long)]
    fresh: bool,
    /// Only tests whose last run of this mix failed.
    #[arg(long)]
    failed: bool,
    /// Do not update the committed results: for trying something out.
    #[arg(long)]
    dry: bool,
    /// Where the scoreboard is.
    #[arg(long, default_value = "tests/conformance")]
    board: PathBuf,
    /// Name of the lab, if several run at once.
    #[arg(long, default_value = "conf")]
    name: String,
}

impl Args {
    fn mix(&self) -> Mix {
        self.alone.map_or_else(|| self.mix.mix(), Mix::only_ours)
    }

    fn focus(&self) -> String {
        match self.alone {
            Some(part) => format!(r"\[sig-({})\].*\[Conformance\]", part.sigs().join("|")),
            None => self.focus.clone(),
        }
    }
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((i, n)) if (1..=n).contains(&i) => Ok((i, n)),
        _ => Err("must be I/N with 1 <= I <= N, such as 1/3".to_owned()),
    }
}

/// Takes what was seen into a mix's results and the scoreboard.
pub struct Recorder {
    board: Board,
    file: PathBuf,
    results: Results,
    regressions: Vec<String>,
    dry: bool,
}

impl Recorder {
    /// Of the mix named `mix`; `dry` writes nothing.
    ///
    /// # Errors
    /// The mix's results are damaged.
    pub fn open(board: Board, mix: &str, dry: bool) -> anyhow::Result<Self> {
        let file = Results::file(&board.dir, mix);
        let results = Results::read(&file)?;
        Ok(Self { board, file, results, regressions: Vec::new(), dry })
    }

    /// True when the last run of the test failed.
    pub fn failed_last(&self, test: &str) -> bool {
        self.results.0.get(test).is_some_and(|entry| entry.state == State::Failed)
    }

    /// Takes outcomes of today in.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn record(&mut self, outcomes: &[Outcome]) -> anyhow::Result<()> {
        if !self.dry {
            // Another run of this mix may have ended meanwhile.
            self.results = Results::read(&self.file)?;
        }
        let day = jiff::Zoned::now().date().to_string();
        for outcome in outcomes {
            if self.results.record(outcome, &day) {
                self.regressions.push(outcome.test.clone());
            }
        }
        if self.dry {
            return Ok(());
        }
        self.results.write(&self.file)?;
        scoreboard::update(&self.board)
    }

    /// Prints the sum and every regression. True when there is none.
    pub fn finish(&self) -> bool {
        println!("{}", summary(&self.results));
        for test in &self.regressions {
            println!("REGRESSION: passed before, fails now: {test}");
        }
        self.regressions.is_empty()
    }
}

/// Runs the suite. False when a test that once passed fails now.
///
/// # Errors
/// The cluster or the suite cannot be started.
pub fn run(args: &Args, places: &Places) -> anyhow::Result<bool> {
    let mix = args.mix();
    let mut recorder = Recorder::open(Board::conformance(&args.board), &mix.name(), args.dry)?;
    let dir = places.cache.join("conformance").join(mix.name());
    let mut run = Run::open(&dir, args, places, &recorder.results)?;
    if run.left.is_empty() {
        bail!("no test matches, or all are done: see --focus, --failed and --fresh");
    }
    println!("{} of {} tests to run, mix {}", run.left.len(), run.total, mix.name());
    let options = Options { name: args.name.clone(), mix, nodes: 2, max_pods: MAX_PODS };
    let mut lab = Lab::start(&options, places, &mut |step| println!("  {step}"))?;
    let bar = progress_bar(run.total, run.total - run.left.len());
    while let Some((tests, processes)) = run.next(args) {
        let name = format!("chunk-{:03}", run.chunk_number()?);
        let chunk = Chunk { tests: &tests, processes, dir: &run.dir, name: &name };
        let (mut good, mut bad) = (0, 0);
        let outcomes = chunk.run(&lab, places, &mut |passed| {
            *(if passed { &mut good } else { &mut bad }) += 1;
            bar.inc(1);
            bar.set_message(format!("{name}: {good} passed, {bad} failed"));
        })?;
        // What a broken cluster says of a test is not kept.
        lab.check()?;
        recorder.record(&outcomes)?;
        let failed: Vec<_> = outcomes.iter().filter(|o| o.state == State::Failed).collect();
        for outcome in &failed {
            say(&bar, &format!("FAILED {}\n       {}", outcome.test, outcome.message));
        }
        run.done(&tests)?;
        let done = run.total - run.left.len();
        bar.set_position(u64::try_from(done)?);
        if bar.is_hidden() {
            // Counted again: the suite's progress takes a panic for a success.
            let (good, bad) = (outcomes.len() - failed.len(), failed.len());
            println!("{done} of {} done: {good} passed, {bad} failed in {name}", run.total);
        }
    }
    bar.finish_and_clear();
    run.finish()?;
    Ok(recorder.finish())
}

/// Runs some tests of the suite by name against a running lab. Reports and the suite's log are kept
/// in `dir`.
///
/// # Errors
/// The suite cannot be started, or one of the tests does not exist.
pub fn run_tests(
    lab: &Lab,
    places: &Places,
    tests: &[String],
    dir: &Path,
) -> anyhow::Result<Vec<Outcome>> {
    let chunk = Chunk { tests, processes: 4, dir, name: "chosen" };
    let outcomes = chunk.run(lab, places, &mut |_| {})?;
    let missing = tests.iter().find(|test| !outcomes.iter().any(|o| o.test == **test));
    match missing {
        Some(test) => bail!("the suite did not run {test:?}"),
        None => Ok(outcomes),
    }
}

fn summary(results: &Results) -> String {
    let of = |state| results.0.values().filter(|entry| entry.state == state).count();
    format!(
        "{} passed, {} failed, {} skipped in all runs of this mix",
        of(State::Passed),
        of(State::Failed),
        of(State::Skipped)
    )
}

/// Prints a line above the bar, or just prints it where there is no terminal.
pub(crate) fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        println!("{line}");
    } else {
        bar.println(line);
    }
}

/// How much is done of how many, for a terminal.
pub(crate) fn progress_bar(total: usize, done: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64).with_position(done as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed}, {eta} left] {msg}")
            .expect("the template is a constant that parses"),
    );
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// A list of tests, and what is done of it.
struct Run {
    dir: PathBuf,
    progress: PathBuf,
    left: Vec<String>,
    total: usize,
}

impl Run {
    fn open(dir: &Path, args: &Args, places: &Places, results: &Results) -> anyhow::Result<Self> {
        let mut tests = suite::list(places, &args.focus(), &args.skip)?;
        if let Some((i, n)) = args.shard {
            tests = tests.into_iter().skip(i - 1).step_by(n).collect();
        }
        let what = format!("{:?} {:?} {:?} {}", args.focus(), args.skip, args.shard, args.failed);
        let id =
            Sha256::digest(what).iter().take(4).fold(String::new(), |s, b| format!("{s}{b:02x}"));
        let dir = dir.join(id);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let progress = dir.join("done.txt");
        if args.fresh && progress.exists() {
            fs::remove_file(&progress).context("forgetting the interrupted run")?;
        }
        let text = fs::read_to_string(&progress).unwrap_or_default();
        let done: BTreeSet<&str> = text.lines().collect();
        if args.failed {
            let failed = |test: &String| {
                let entry = results.0.get(test);
                entry.is_some_and(|e| e.state == State::Failed) || done.contains(test.as_str())
            };
            tests.retain(failed);
        }
        let total = tests.len();
        let left = tests.into_iter().filter(|test| !done.contains(test.as_str())).collect();
        Ok(Self { dir, progress, left, total })
    }

    /// The next tests, and how many of them run at a time. Those that run alone come last.
    fn next(&self, args: &Args) -> Option<(Vec<String>, usize)> {
        let alone = |test: &&String| test.contains("[Serial]") || test.contains("[Disruptive]");
        let together: Vec<String> =
            self.left.iter().filter(|t| !alone(t)).take(args.chunk).cloned().collect();
        if !together.is_empty() {
            return Some((together, args.processes));
        }
        let serial: Vec<String> =
            self.left.iter().filter(alone).take(args.chunk).cloned().collect();
        (!serial.is_empty()).then_some((serial, 1))
    }

    /// Reports of one run are numbered; those of earlier runs of the same list are replaced.
    fn chunk_number(&self) -> anyhow::Result<usize> {
        let text = fs::read_to_string(&self.progress).unwrap_or_default();
        Ok(text.lines().filter(|line| line.is_empty()).count() + 1)
    }

    fn done(&mut self, tests: &[String]) -> anyhow::Result<()> {
        let mut text = fs::read_to_string(&self.progress).unwrap_or_default();
        // An empty line ends a chunk.
        text += &format!("{}\n\n", tests.join("\n"));
        let partial = self.progress.with_extension("partial");
        fs::write(&partial, text).context("writing the run's progress")?;
        fs::rename(&partial, &self.progress).context("writing the run's progress")?;
        self.left.retain(|test| !tests.contains(test));
        Ok(())
    }

    fn finish(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.progress).context("ending the run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_checked() {
        assert_eq!(parse_shard("2/3"), Ok((2, 3)));
        for bad in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(parse_shard(bad).is_err(), "{bad}");
        }
    }
}
