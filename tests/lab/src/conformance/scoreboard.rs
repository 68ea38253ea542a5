//! `SCOREBOARD.md`: made from the result files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::results::Results;
use super::suite::State;

/// The control run: everything upstream's.
const CONTROL: &str = "upstream";

/// A directory with results, and what its scoreboard calls things.
#[derive(Clone, Debug)]
pub struct Board {
    /// The directory.
    pub dir: PathBuf,
    title: &'static str,
    /// What makes it.
    command: &'static str,
    /// What the first word of a test's name, in brackets, says.
    group: &'static str,
}

impl Board {
    /// Of upstream's end-to-end and integration suites.
    pub fn conformance(dir: &Path) -> Self {
        let (title, command) = ("Conformance scoreboard", "cargo xtask conformance");
        Self { dir: dir.to_owned(), title, command, group: "SIG" }
    }

    /// Of upstream's command tests of kubectl.
    pub fn kubectl(dir: &Path) -> Self {
        let (title, command) = ("Scoreboard of kubectl's tests", "cargo xtask kubectl-tests");
        Self { dir: dir.to_owned(), title, command, group: "script" }
    }
}

/// Why a test fails, as far as known: `notes.tsv`.
struct Note {
    mix: String,
    test: String,
    text: String,
}

/// Makes the scoreboard anew from what is in its directory.
///
/// # Errors
/// A file is damaged or the scoreboard cannot be written.
pub fn update(board: &Board) -> anyhow::Result<()> {
    let dir = &board.dir;
    let mut mixes = BTreeMap::new();
    for entry in fs::read_dir(dir.join("results")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "tsv") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            mixes.insert(name, Results::read(&path)?);
        }
    }
    let notes = notes(&dir.join("notes.tsv"))?;
    let path = dir.join("SCOREBOARD.md");
    fs::write(&path, render(board, &mixes, &notes))
        .with_context(|| format!("writing {}", path.display()))
}

fn notes(path: &Path) -> anyhow::Result<Vec<Note>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let parse = |line: &str| -> anyhow::Result<Note> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [mix, test, text] = fields[..] else {
            bail!("{}: not `mix TAB test TAB reason`: {line:?}", path.display());
        };
        Ok(Note { mix: mix.into(), test: test.into(), text: text.into() })
    };
    lines.map(parse).collect()
}

/// `sig-node` of `[sig-node] Probing container …`.
fn sig(test: &str) -> &str {
    test.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or("other")
}

fn render(board: &Board, mixes: &BTreeMap<String, Results>, notes: &[Note]) -> String {
    let tests: BTreeSet<&str> =
        mixes.values().flat_map(|results| results.0.keys().map(String::as_str)).collect();
    // The control run first, everything of ours next, then the single parts.
    let mut names: Vec<&str> = mixes.keys().map(String::as_str).collect();
    names.sort_by_key(|name| (*name != CONTROL, *name != "ours", *name));
    let Board { title, command, group, .. } = board;
    let mut text = format!(
        "# {title}\n\nMade by `{command}` from `results/*.tsv` and `notes.tsv`; not edited by \
         hand. A column is a mix: `upstream` is the control run (everything upstream's), `ours` \
         everything of ours, any other name the parts of ours in an otherwise upstream cluster. \
         A test that fails in the control run fails because of the environment; nothing else is \
         excused.\n\n## By {group}\n\nPassed / failed / not run.\n\n",
    );
    header(&mut text, group, &names);
    let sigs: BTreeSet<&str> = tests.iter().map(|test| sig(test)).collect();
    for group in sigs.iter().copied().map(Some).chain([None]) {
        let of_group: Vec<&str> =
            tests.iter().copied().filter(|test| group.is_none_or(|g| sig(test) == g)).collect();
        text += &format!("| {} |", group.unwrap_or("**all**"));
        for name in &names {
            text += &format!(" {} |", count(&mixes[*name], &of_group));
        }
        text.push('\n');
    }
    failures(&mut text, mixes, &names, notes);
    every_test(&mut text, mixes, &names, &tests);
    text
}

fn header(text: &mut String, first: &str, names: &[&str]) {
    *text += &format!("| {first} | {} |\n|-|{}\n", names.join(" | "), "-|".repeat(names.len()));
}

fn count(results: &Results, tests: &[&str]) -> String {
    let of = |state: State| {
        let is = |test: &&&str| results.0.get(**test).is_some_and(|entry| entry.state == state);
        tests.iter().filter(is).count()
    };
    let (passed, failed) = (of(State::Passed), of(State::Failed));
    format!("{passed} / {failed} / {}", tests.len() - passed - failed)
}

fn failures(text: &mut String, mixes: &BTreeMap<String, Results>, names: &[&str], notes: &[Note]) {
    for name in names {
        let failed = mixes[*name].0.iter().filter(|(_, entry)| entry.state == State::Failed);
        let mut rows = String::new();
        for (test, entry) in failed {
            let fits = |note: &&Note| note.mix == *name && note.test == *test;
            let cause = match notes.iter().find(fits) {
                Some(note) => note.text.clone(),
                None if *name != CONTROL && fails_in_control(mixes, test) => {
                    "environment: fails in the control run too".to_owned()
                }
                None => format!("seen: {}", entry.message.chars().take(160).collect::<String>()),
            };
            let cell = |text: &str| text.replace('|', "\\|");
            rows += &format!("| {} | {} | {} |\n", cell(test), entry.since, cell(&cause));
        }
        if !rows.is_empty() {
            *text += &format!(
                "\n## Failing in `{name}`\n\n| test | since | suspected cause |\n|-|-|-|\n{rows}"
            );
        }
    }
}

fn fails_in_control(mixes: &BTreeMap<String, Results>, test: &str) -> bool {
    let entry = mixes.get(CONTROL).and_then(|results| results.0.get(test));
    entry.is_some_and(|entry| entry.state == State::Failed)
}

fn every_test(
    text: &mut String,
    mixes: &BTreeMap<String, Results>,
    names: &[&str],
    tests: &BTreeSet<&str>,
) {
    *text += "\n## Every test\n\nThe state, and the day since when it is so.\n\n";
    header(text, "test", names);
    for test in tests {
        *text += &format!("| {} |", test.replace('|', "\\|"));
        for name in names {
            *text += &match mixes[*name].0.get(*test) {
                Some(entry) => format!(" {} {} |", entry.state.word(), entry.since),
                None => " not run |".to_owned(),
            };
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::Outcome;
    use super::*;

    #[test]
    fn the_board_counts_and_explains() {
        let mut control = Results::default();
        let mut ours = Results::default();
        let outcome = |test: &str, state, message: &str| Outcome {
            test: test.into(),
            state,
            seconds: 1.0,
            message: message.into(),
        };
        control.record(&outcome("[sig-a] env", State::Failed, "no ipv6"), "2026-01-01");
        control.record(&outcome("[sig-a] good", State::Passed, ""), "2026-01-01");
        ours.record(&outcome("[sig-a] env", State::Failed, "x"), "2026-01-02");
        ours.record(&outcome("[sig-b] bad", State::Failed, "y|z"), "2026-01-02");
        let mixes = BTreeMap::from([("ours".into(), ours), ("upstream".into(), control)]);
        let note = Note {
            mix: "upstream".into(),
            test: "[sig-a] env".into(),
            text: "this host has no IPv6".into(),
        };
        let text = render(&Board::conformance(Path::new("x")), &mixes, &[note]);
        assert!(text.contains("| SIG | upstream | ours |"), "{text}");
        assert!(text.contains("| sig-a | 1 / 1 / 0 | 0 / 1 / 1 |"), "{text}");
        assert!(text.contains("| **all** | 1 / 1 / 1 | 0 / 2 / 1 |"), "{text}");
        assert!(text.contains("| [sig-a] env | 2026-01-01 | this host has no IPv6 |"));
        assert!(text.contains("| [sig-a] env | 2026-01-02 | environment: fails in the control"));
        assert!(text.contains("| [sig-b] bad | 2026-01-02 | seen: y\\|z |"), "{text}");
        assert!(text.contains("| [sig-b] bad | not run | failed 2026-01-02 |"), "{text}");
    }
}
