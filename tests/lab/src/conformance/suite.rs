//! Upstream's suite as a program: which tests it has, and running some of them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::lab::Lab;
use crate::places::Places;

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It did what it says.
    Passed,
    /// It did not, or did not end.
    Failed,
    /// It found this cluster unfit for it.
    Skipped,
}

impl State {
    /// The word in the result files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// The state of a word in a result file.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Passed, Self::Failed, Self::Skipped].into_iter().find(|s| s.word() == word)
    }
}

/// What one test did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The test's full name.
    pub test: String,
    /// How it ended.
    pub state: State,
    /// How long it took.
    pub seconds: f64,
    /// First line of the failure; empty otherwise.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    spec_reports: Option<Vec<SpecReport>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SpecReport {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    run_time: f64,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

impl SpecReport {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(self.leaf_node_text.clone());
        words.join(" ")
    }

    fn outcome(&self) -> Option<Outcome> {
        let state = match self.state.as_str() {
            "passed" => State::Passed,
            // Left out by the filters: not run at all.
            "skipped" if self.run_time == 0.0 => return None,
            "skipped" => State::Skipped,
            "pending" => return None,
            _ => State::Failed,
        };
        let message = match (&self.failure, state) {
            (Some(failure), State::Failed) => first_line(&failure.message),
            _ => String::new(),
        };
        // Nanoseconds.
        let seconds = self.run_time / 1e9;
        Some(Outcome { test: self.name(), state, seconds, message })
    }
}

/// The part of a failure that fits into a table.
fn first_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ").replace('\t', " ");
    line.chars().take(300).collect()
}

fn read_report(path: &Path) -> anyhow::Result<Vec<SpecReport>> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let reports: Vec<Report> = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("reading {}", path.display()))?;
    let specs = reports.into_iter().flat_map(|report| report.spec_reports.unwrap_or_default());
    Ok(specs.filter(|spec| spec.leaf_node_type == "It").collect())
}

/// Names of the tests that match `focus` and not `skip` (Go regular expressions).
///
/// # Errors
/// The suite refuses an expression.
pub fn list(places: &Places, focus: &str, skip: &str) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir().context("making a temporary directory")?;
    let report = dir.path().join("list.json");
    let output = Command::new(places.upstream_tool("e2e.test")?)
        .args(["--provider=skeleton", "--ginkgo.dry-run", "--ginkgo.silence-skips"])
        .arg(format!("--ginkgo.focus={focus}"))
        .arg(format!("--ginkgo.skip={skip}"))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .context("starting e2e.test")?;
    if !output.status.success() {
        bail!("e2e.test cannot list: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let specs = read_report(&report)?;
    let mut names: Vec<String> =
        specs.iter().filter(|spec| spec.state == "passed").map(SpecReport::name).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Process group of the suite that runs now; 0 when none does.
pub static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Ends the suite that runs now, so that [`Chunk::run`] returns. False when none runs.
pub fn interrupt() -> bool {
    let group = RUNNING.load(Ordering::SeqCst);
    group > 0 && killpg(Pid::from_raw(group), Signal::SIGKILL).is_ok()
}

/// How to run some tests.
pub struct Chunk<'a> {
    /// Their names.
    pub tests: &'a [String],
    /// How many at a time.
    pub processes: usize,
    /// Where reports and the log are written; the files' names begin with `name`.
    pub dir: &'a Path,
    /// See `dir`.
    pub name: &'a str,
}

impl Chunk<'_> {
    fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }

    /// Runs them; `ended` is told of each line of the suite that says that a test has ended.
    ///
    /// # Errors
    /// The suite does not start or writes no report.
    pub fn run(
        &self,
        lab: &Lab,
        places: &Places,
        ended: &mut dyn FnMut(bool),
    ) -> anyhow::Result<Vec<Outcome>> {
        fs::create_dir_all(self.dir).with_context(|| format!("making {}", self.dir.display()))?;
        let mut command = Command::new(places.upstream_tool("ginkgo")?);
        let report = self.file("json");
        let _ = fs::remove_file(&report);
        command
            .args(["run", "--no-color", "--timeout=3h", "--silence-skips", "-v"])
            .arg(format!("--procs={}", self.processes))
            .arg(format!("--focus={}", focus_on(self.tests)))
            .arg(format!("--output-dir={}", self.dir.display()))
            .arg(format!("--json-report={}.json", self.name))
            .arg(format!("--junit-report={}.xml", self.name))
            .arg(places.upstream_tool("e2e.test")?)
            .args([
                "--",
                "--provider=skeleton",
                "--disable-log-dump=true",
                "--dns-domain=cluster.local",
            ])
            .arg(format!("--kubeconfig={}", lab.inner_kubeconfig().display()))
            .arg(format!("--kubectl-path={}", places.upstream_tool("kubectl")?.display()))
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let log = self.file("log");
        let mut copy = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        command.stderr(copy.try_clone()?);
        lab.inside(&mut command)?;
        // A group of its own, which an interruption ends as a whole.
        let mut child = command.process_group(0).spawn().context("starting ginkgo")?;
        RUNNING.store(i32::try_from(child.id())?, Ordering::SeqCst);
        let stdout = child.stdout.take().context("ginkgo has no output")?;
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            use std::io::Write;
            writeln!(copy, "{line}").context("writing the suite's log")?;
            if line.starts_with('•') {
                ended(!line.contains("[FAILED]") && !line.contains("[TIMEDOUT]"));
            }
        }
        let status = child.wait().context("waiting for ginkgo")?;
        RUNNING.store(0, Ordering::SeqCst);
        if !report.exists() {
            bail!("the suite wrote no report ({status}); its log is {}", log.display());
        }
        Ok(read_report(&report)?.iter().filter_map(SpecReport::outcome).collect())
    }
}

/// An expression that matches exactly these tests.
fn focus_on(tests: &[String]) -> String {
    let quoted: Vec<String> = tests.iter().map(|test| quote(test)).collect();
    format!(" (?:{})$", quoted.join("|"))
}

/// Escapes what is special in a Go regular expression.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let focus = focus_on(&["[sig-a] b (c)".into(), "d.e".into()]);
        assert_eq!(focus, r" (?:\[sig-a\] b \(c\)|d\.e)$");
    }

    #[test]
    fn reports_become_outcomes() {
        let text = r#"[{"SpecReports":[
          {"ContainerHierarchyTexts":["[sig-a] A","B"],"LeafNodeType":"It","LeafNodeText":"works",
           "State":"passed","RunTime":1500000000},
          {"ContainerHierarchyTexts":["[sig-a] A"],"LeafNodeType":"It","LeafNodeText":"fails",
           "State":"timedout","RunTime":2000000000,"Failure":{"Message":"\n one\n\ttwo"}},
          {"ContainerHierarchyTexts":null,"LeafNodeType":"It","LeafNodeText":"filtered",
           "State":"skipped","RunTime":0},
          {"ContainerHierarchyTexts":null,"LeafNodeType":"SynchronizedBeforeSuite",
           "LeafNodeText":"","State":"passed","RunTime":1}]}]"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, text).unwrap();
        let specs = read_report(&path).unwrap();
        let outcomes: Vec<_> = specs.iter().filter_map(SpecReport::outcome).collect();
        assert_eq!(outcomes.len(), 2);
        assert_eq!(outcomes[0].test, "[sig-a] A B works");
        assert_eq!((outcomes[0].state, outcomes[0].seconds), (State::Passed, 1.5));
        assert_eq!((outcomes[1].state, outcomes[1].message.as_str()), (State::Failed, "one two"));
    }
}
