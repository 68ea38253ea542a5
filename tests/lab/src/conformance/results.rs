//! What is known of every test in one mix: a committed file, one line a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::suite::{Outcome, State};

const HEADER: &str = "# test\tstate\tsince\tlast run\tseconds\tmessage";

/// One test in one mix.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// How its last run ended.
    pub state: State,
    /// The day since when it ends so (`2026-11-28`).
    pub since: String,
    /// The day of its last run.
    pub last: String,
    /// How long its last run took.
    pub seconds: f64,
    /// Of the failure.
    pub message: String,
}

/// All tests of one mix, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results(pub BTreeMap<String, Entry>);

impl Results {
    /// The file of a mix.
    pub fn file(dir: &Path, mix: &str) -> PathBuf {
        dir.join("results").join(format!("{mix}.tsv"))
    }

    /// Reads a file; empty when there is none.
    ///
    /// # Errors
    /// A line is damaged.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let Ok(text) = fs::read_to_string(path) else { return Ok(Self::default()) };
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let entries = lines.map(|line| {
            parse(line).with_context(|| format!("{}: damaged line {line:?}", path.display()))
        });
        Ok(Self(entries.collect::<anyhow::Result<_>>()?))
    }

    /// Writes the file: all of it, or nothing.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = format!("{HEADER}\n");
        for (test, e) in &self.0 {
            let (state, seconds) = (e.state.word(), e.seconds);
            text +=
                &format!("{test}\t{state}\t{}\t{}\t{seconds:.1}\t{}\n", e.since, e.last, e.message);
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let partial = path.with_extension("partial");
        fs::write(&partial, text).with_context(|| format!("writing {}", partial.display()))?;
        fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))
    }

    /// Takes in what was seen on `day`. True when it is a regression: passed before, fails now.
    pub fn record(&mut self, outcome: &Outcome, day: &str) -> bool {
        let before = self.0.get(&outcome.test);
        let regression = outcome.state == State::Failed
            && before.is_some_and(|entry| entry.state == State::Passed);
        let same = before.filter(|entry| entry.state == outcome.state);
        let since = same.map_or_else(|| day.to_owned(), |entry| entry.since.clone());
        let entry = Entry {
            state: outcome.state,
            since,
            last: day.to_owned(),
            seconds: outcome.seconds,
            message: outcome.message.clone(),
        };
        self.0.insert(outcome.test.clone(), entry);
        regression
    }
}

fn parse(line: &str) -> Option<(String, Entry)> {
    let mut fields = line.split('\t');
    let test = fields.next()?.to_owned();
    let entry = Entry {
        state: State::parse(fields.next()?)?,
        since: fields.next()?.to_owned(),
        last: fields.next()?.to_owned(),
        seconds: fields.next()?.parse().ok()?,
        message: fields.next().unwrap_or_default().to_owned(),
    };
    Some((test, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(state: State) -> Outcome {
        Outcome { test: "[sig-a] t".into(), state, seconds: 1.0, message: String::new() }
    }

    #[test]
    fn a_state_keeps_its_first_day_and_a_regression_is_noticed() {
        let mut results = Results::default();
        assert!(!results.record(&outcome(State::Failed), "2026-01-01"), "it never passed");
        assert!(!results.record(&outcome(State::Passed), "2026-01-02"));
        assert!(!results.record(&outcome(State::Passed), "2026-01-03"));
        let entry = &results.0["[sig-a] t"];
        assert_eq!((entry.since.as_str(), entry.last.as_str()), ("2026-01-02", "2026-01-03"));
        assert!(results.record(&outcome(State::Failed), "2026-01-04"));
        assert_eq!(results.0["[sig-a] t"].since, "2026-01-04");
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = Results::file(dir.path(), "ours");
        let mut results = Results::default();
        results.record(&outcome(State::Skipped), "2026-01-01");
        results.write(&path).unwrap();
        assert_eq!(Results::read(&path).unwrap(), results);
        fs::write(&path, "[sig-a] t\tgreat\n").unwrap();
        assert!(Results::read(&path).is_err());
    }
}
