//! The report: Markdown on standard output and in RESULTS.md, JSON beside the logs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use lab::mix::Origin;
use lab::places::Places;
use serde_json::json;

use crate::machine::{self, Processors};
use crate::rounds::{Entry, Outcome};

/// The file with all recorded results, in the working directory that `cargo xtask` gives.
pub const RESULTS: &str = "tests/bench/RESULTS.md";

/// Under which circumstances something was measured.
pub struct Circumstances {
    /// UTC.
    pub date: String,
    /// Processors, memory, kernel.
    pub machine: String,
    /// Version of our server, with the commit.
    pub ours: String,
    /// Version of upstream's.
    pub upstream: String,
    /// What reproduces it.
    pub command: String,
}

impl Circumstances {
    /// Those of now. `args` are the arguments of this program.
    pub fn now(entry: &Entry, places: &Places, processors: Processors, args: &[String]) -> Self {
        let mut ours = machine::version(places, entry.part, Origin::Ours);
        if let Some(commit) = machine::commit() {
            let _ = write!(ours, ", commit {commit}");
        }
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            machine: machine::describe(processors),
            ours,
            upstream: machine::version(places, entry.part, Origin::Upstream),
            command: args.iter().fold("cargo xtask bench".to_owned(), |command, arg| {
                match arg.contains(char::is_whitespace) {
                    true => format!("{command} {arg:?}"),
                    false => format!("{command} {arg}"),
                }
            }),
        }
    }
}

/// The section of a subject.
pub fn markdown(entry: &Entry, circumstances: &Circumstances, outcomes: &[Outcome]) -> String {
    let Circumstances { date, machine, ours, upstream, command } = circumstances;
    let mut text = format!(
        "## {}\n\n{}\n\nCells are medians (smallest–largest) of all rounds; ratio is ours/upstream. Of \
         op and events more is better, of all else less.\n",
        entry.name, entry.about
    );
    for outcome in outcomes {
        let rounds = if outcome.rounds == 1 {
            "1 round".into()
        } else {
            format!("{} rounds", outcome.rounds)
        };
        // With each table: others may come from another day, commit or machine.
        let _ = write!(
            text,
            "\n### {} ({rounds})\n\n`{command}` on {date}: {machine}. Ours: {ours}. Upstream: \
             {upstream}.\n\n{}",
            outcome.scene,
            outcome.comparison.markdown()
        );
        if !outcome.failures.is_empty() {
            text.push_str("\nFailed:\n\n");
        }
        for failure in &outcome.failures {
            let _ = writeln!(text, "- {}", failure.lines().next().unwrap_or_default());
        }
    }
    text
}

/// Every number, for programs.
pub fn json(
    entry: &Entry,
    circumstances: &Circumstances,
    outcomes: &[Outcome],
) -> serde_json::Value {
    let scenes: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "scene": outcome.scene,
                "rounds": outcome.rounds,
                "figures": outcome.comparison.json(),
                "failures": outcome.failures,
            })
        })
        .collect();
    json!({
        "subject": entry.name,
        "date": circumstances.date,
        "machine": circumstances.machine,
        "ours": circumstances.ours,
        "upstream": circumstances.upstream,
        "command": circumstances.command,
        "scenes": scenes,
    })
}

/// Puts a subject's section into [`RESULTS`]. With `keep` the tables of scenes that it does not have
/// stay.
///
/// # Errors
/// The file is not here, or cannot be written.
pub fn record(subject: &str, section: &str, keep: bool) -> anyhow::Result<()> {
    let path = Path::new(RESULTS);
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading {RESULTS}: start this from the repository's root"))?;
    let replaced = if keep {
        let old = between(&text, subject)?.map(|(from, to)| &text[from..to]).unwrap_or_default();
        replace(&text, subject, &merge(old, section))?
    } else {
        replace(&text, subject, section)?
    };
    fs::write(path, replaced).with_context(|| format!("writing {RESULTS}"))
}

/// The new section with those of the old one's scenes that it lacks.
fn merge(old: &str, new: &str) -> String {
    const SCENE: &str = "\n### ";
    let name = |scene: &str| scene.split(" (").next().unwrap_or_default().to_owned();
    let (head, scenes) = new.split_once(SCENE).unwrap_or((new, ""));
    let mut fresh: Vec<(String, &str)> =
        scenes.split(SCENE).filter(|s| !s.is_empty()).map(|s| (name(s), s)).collect();
    let mut text = head.trim_end().to_owned();
    let mut add = |scene: &str| {
        let _ = write!(text, "\n{SCENE}{}", scene.trim_end());
    };
    for stale in old.split(SCENE).skip(1) {
        match fresh.iter().position(|(fresh, _)| *fresh == name(stale)) {
            Some(place) => add(fresh.remove(place).1),
            None => add(stale),
        }
    }
    fresh.into_iter().for_each(|(_, scene)| add(scene));
    text
}

/// Where a subject's section is, without its two comments.
fn between(text: &str, subject: &str) -> anyhow::Result<Option<(usize, usize)>> {
    let (begin, end) = (format!("<!-- bench {subject} -->"), format!("<!-- end {subject} -->"));
    let Some(from) = text.find(&begin) else { return Ok(None) };
    let Some(length) = text[from..].find(&end) else {
        bail!("{RESULTS} has {begin} without {end}");
    };
    Ok(Some((from + begin.len(), from + length)))
}

/// Replaces what stands between a subject's two comments, or adds both at the end.
fn replace(text: &str, subject: &str, section: &str) -> anyhow::Result<String> {
    let section = section.trim_end();
    Ok(match between(text, subject)? {
        Some((from, to)) => format!("{}\n{section}\n{}", &text[..from], &text[to..]),
        None => format!(
            "{}\n\n<!-- bench {subject} -->\n{section}\n<!-- end {subject} -->\n",
            text.trim_end()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_added_once_and_then_replaced() {
        let start = "# Measured\n\nText.\n";
        let one = replace(start, "etcd", "## etcd\n\nold\n").unwrap();
        assert_eq!(
            one,
            "# Measured\n\nText.\n\n<!-- bench etcd -->\n## etcd\n\nold\n<!-- end etcd -->\n"
        );
        let two = replace(&one, "proxy", "## proxy\n").unwrap();
        let three = replace(&two, "etcd", "## etcd\n\nnew\n").unwrap();
        assert_eq!(three, two.replace("old", "new"));
        assert!(three.ends_with(
            "<!-- end etcd -->\n\n<!-- bench proxy -->\n## proxy\n<!-- end proxy -->\n"
        ));
    }

    #[test]
    fn scenes_that_were_not_run_again_stay() {
        let old = "\n## x\n\nold\n\n### a (1 round)\n\n1\n\n### b (1 round)\n\n2\n";
        let new = "## x\n\nnew\n\n### c (1 round)\n\n4\n\n### b (3 rounds)\n\n3\n";
        assert_eq!(
            merge(old, new),
            "## x\n\nnew\n\n### a (1 round)\n\n1\n\n### b (3 rounds)\n\n3\n\n### c (1 round)\n\n4"
        );
        assert_eq!(merge("", new), new.trim_end());
    }

    #[test]
    fn a_torn_section_is_not_guessed_at() {
        let error = replace("<!-- bench etcd -->\nx\n", "etcd", "y").unwrap_err();
        assert!(error.to_string().contains("<!-- end etcd -->"), "{error}");
    }
}
