//! Upstream's integration suites of the API machinery and of its storage, which run API servers of
//! their own in the test's process, against either etcd: they use one that already runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::conformance::{Board, Outcome, Recorder, State};
use crate::mix::{Mix, Origin, Part};
use crate::network::{self, Network};
use crate::places::Places;
use crate::process::{Process, Spec, enter};

/// Name of the network namespace and the directory.
const NAME: &str = "integ";
/// How long etcd may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Run upstream's integration suites against an etcd, and keep the score.
#[derive(clap::Args)]
pub struct Args {
    /// Whose etcd.
    #[arg(long, value_enum, default_value_t = Origin::Ours)]
    etcd: Origin,
    /// Which suites; all when none is named.
    #[arg(long, value_enum)]
    suite: Vec<Suite>,
    /// Run the tests whose name matches (Go regular expression).
    #[arg(long, value_name = "REGEX")]
    run: Option<String>,
    /// Do not update the committed results.
    #[arg(long)]
    dry: bool,
    /// Where the scoreboard is.
    #[arg(long, default_value = "tests/conformance")]
    board: PathBuf,
}

/// A neighbour that is not there.
const NOWHERE: &str = "10.0.0.254";

/// A package of upstream's `test/integration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// `test/integration/apimachinery`: lists and watches.
    Apimachinery,
    /// `test/integration/etcd`: where and how every kind is stored.
    Etcd,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Apimachinery => "apimachinery",
            Self::Etcd => "etcd",
        }
    }
}

/// Runs the suites. False when a test that once passed fails now.
///
/// # Errors
/// etcd or a suite does not start.
pub fn run(args: &Args, places: &Places) -> anyhow::Result<bool> {
    network::remove(NAME)?;
    let network = Network::start(NAME)?;
    // The suites' API servers take the address of the default route's interface for their own. It
    // leads nowhere: the namespace has no way out.
    network.add_route("default", NOWHERE)?;
    let dir = places.cache.join("integration");
    let suites = match &args.suite[..] {
        [] => Suite::value_variants(),
        chosen => chosen,
    };
    let mix = match args.etcd {
        Origin::Ours => Mix::only_ours(Part::Etcd),
        Origin::Upstream => Mix::all(Origin::Upstream),
    };
    let mut recorder = Recorder::open(Board::conformance(&args.board), &mix.name(), args.dry)?;
    for suite in suites {
        // A store of its own: each suite expects an empty one.
        let data = dir.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
        }
        let mut etcd = start_etcd(args.etcd, places, &network, &dir)?;
        let outcomes = run_suite(*suite, args, places, &network, &dir)?;
        etcd.check()?;
        let failed = outcomes.iter().filter(|outcome| outcome.state == State::Failed).count();
        println!("{}: {} tests, {failed} failed", suite.name(), outcomes.len());
        recorder.record(&outcomes)?;
    }
    Ok(recorder.finish())
}

fn start_etcd(
    origin: Origin,
    places: &Places,
    network: &Network,
    dir: &std::path::Path,
) -> anyhow::Result<Process> {
    let mut spec = Spec::new("etcd", places.executable(Part::Etcd, origin)?);
    let url = "http://127.0.0.1:2379".to_owned();
    spec.flags(&[
        ("data-dir", dir.join("data").to_string_lossy().into_owned()),
        ("listen-client-urls", url.clone()),
        ("advertise-client-urls", url),
    ]);
    spec.netns = Some(network.path());
    let mut etcd = Process::start(spec, &network::name(NAME), &dir.join("logs"))?;
    let deadline = Instant::now() + PATIENCE;
    while !network.answers((Ipv4Addr::LOCALHOST, 2379)) {
        etcd.check()?;
        if Instant::now() > deadline {
            bail!("etcd does not answer. {}", etcd.last_words());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(etcd)
}

fn run_suite(
    suite: Suite,
    args: &Args,
    places: &Places,
    network: &Network,
    dir: &std::path::Path,
) -> anyhow::Result<Vec<Outcome>> {
    let temporary = dir.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("making {}", temporary.display()))?;
    let program = places.upstream_tool(&format!("integration-{}.test", suite.name()))?;
    let mut command = Command::new(program);
    command.args(["-test.v", "-test.timeout=60m"]);
    if let Some(tests) = &args.run {
        command.arg(format!("-test.run={tests}"));
    }
    command
        .current_dir(&temporary)
        .env("TMPDIR", &temporary)
        .env("KUBE_INTEGRATION_ETCD_URL", "http://127.0.0.1:2379")
        .env("PATH", path_with(places.executable(Part::Etcd, args.etcd)?.parent()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let log = dir.join(format!("{}.log", suite.name()));
    let mut copy = fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    command.stderr(copy.try_clone()?);
    enter(&mut command, Some(&network.path()), None)?;
    let mut child = command.spawn().context("starting the suite")?;
    let stdout = child.stdout.take().context("the suite has no output")?;
    let mut outcomes = Vec::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        use std::io::Write;
        writeln!(copy, "{line}").context("writing the suite's log")?;
        if let Some(outcome) = ended(&line, suite.name()) {
            println!("{} {}", outcome.state.word(), outcome.test);
            outcomes.push(outcome);
        }
    }
    let status = child.wait().context("waiting for the suite")?;
    if outcomes.is_empty() {
        bail!("the suite ran no test ({status}); its log is {}", log.display());
    }
    Ok(outcomes)
}

/// Some tests start an etcd of their own, which they look up.
fn path_with(first: Option<&std::path::Path>) -> std::ffi::OsString {
    let mut path = first.map(|dir| dir.as_os_str().to_owned()).unwrap_or_default();
    if let Some(inherited) = std::env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    path
}

/// `--- PASS: TestName (1.50s)` of a top-level test.
fn ended(line: &str, suite: &str) -> Option<Outcome> {
    let (word, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
    let state = match word {
        "PASS" => State::Passed,
        "FAIL" => State::Failed,
        "SKIP" => State::Skipped,
        _ => return None,
    };
    let (test, time) = rest.split_once(" (")?;
    Some(Outcome {
        test: format!("[integration {suite}] {test}"),
        state,
        seconds: time.trim_end_matches("s)").parse().ok()?,
        message: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ends_of_whole_tests_count() {
        let outcome = ended("--- FAIL: TestWatch (1.50s)", "etcd").unwrap();
        assert_eq!(outcome.test, "[integration etcd] TestWatch");
        assert_eq!((outcome.state, outcome.seconds), (State::Failed, 1.5));
        for line in ["    --- PASS: TestWatch/sub (0.1s)", "=== RUN   TestWatch", "--- BENCH: x"] {
            assert_eq!(ended(line, "etcd"), None, "{line}");
        }
    }
}
