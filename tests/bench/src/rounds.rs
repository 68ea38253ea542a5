//! Subjects, and the order of their turns.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::mix::{Origin, Part};

use crate::bench::Bench;
use crate::figures::{Comparison, Figures};

/// How long the machine is left alone before a turn.
const PAUSE: Duration = Duration::from_secs(1);

/// A subject in the list of all.
pub struct Entry {
    /// The word on the command line, and the section of RESULTS.md.
    pub name: &'static str,
    /// What is swapped; its version is noted.
    pub part: Part,
    /// What a reader of the tables has to know: Markdown, one paragraph.
    pub about: &'static str,
    /// Makes it. What all scenes share can be started here.
    pub start: fn(&Bench) -> anyhow::Result<Box<dyn Subject>>,
}

/// A setting that both servers are put into.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Headline of its table.
    pub name: String,
    /// Rounds in which more would only cost time; `usize::MAX` for no such limit.
    pub most_rounds: usize,
}

impl Scene {
    /// A scene with as many rounds as the user wants.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), most_rounds: usize::MAX }
    }
}

/// What is measured. See the crate's documentation for how to add one.
pub trait Subject {
    /// The settings, in order.
    fn scenes(&self, bench: &Bench) -> Vec<Scene>;

    /// Makes what both sides share in a scene; called once per scene, in order.
    ///
    /// # Errors
    /// It cannot be made; the scene is skipped.
    fn prepare(&mut self, _bench: &Bench, _scene: usize) -> anyhow::Result<()> {
        Ok(())
    }

    /// Starts the server of `origin`, measures it, and stops it.
    ///
    /// # Errors
    /// It does not do what it should. Figures entered before remain.
    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()>;
}

/// What came out of a scene.
pub struct Outcome {
    /// Name of the scene.
    pub scene: String,
    /// Rounds that were run.
    pub rounds: usize,
    /// Its figures.
    pub comparison: Comparison,
    /// What went wrong.
    pub failures: Vec<String>,
}

/// Runs all scenes whose name contains `only`; `after` sees what there is after each.
///
/// # Errors
/// The subject cannot be started, or `after` fails. What goes wrong later is part of the outcome.
pub fn run(
    entry: &Entry,
    bench: &Bench,
    rounds: usize,
    only: &str,
    after: impl Fn(&[Outcome]) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Outcome>> {
    let started = (entry.start)(bench);
    let mut subject = started.with_context(|| format!("preparing {}", entry.name))?;
    let mut outcomes = Vec::new();
    for (index, scene) in subject.scenes(bench).into_iter().enumerate() {
        if scene.name.contains(only) {
            outcomes.push(play(subject.as_mut(), bench, index, &scene, rounds));
            after(&outcomes)?;
        }
    }
    Ok(outcomes)
}

fn play(
    subject: &mut dyn Subject,
    bench: &Bench,
    index: usize,
    scene: &Scene,
    rounds: usize,
) -> Outcome {
    let rounds = rounds.min(scene.most_rounds);
    let mut outcome = Outcome {
        scene: scene.name.clone(),
        rounds,
        comparison: Comparison::default(),
        failures: Vec::new(),
    };
    eprintln!("{}", scene.name);
    if let Err(error) = subject.prepare(bench, index) {
        outcome.failures.push(format!("preparing: {error:#}"));
        return outcome;
    }
    let mut failed = Vec::new();
    for (round, origin) in order(rounds) {
        if failed.contains(&origin) {
            continue;
        }
        let started = Instant::now();
        // What the last turn left to write is not this one's burden.
        nix::unistd::sync();
        std::thread::sleep(PAUSE);
        let mut figures = Figures::default();
        if let Err(error) = subject.turn(bench, index, origin, &mut figures) {
            failed.push(origin);
            let failure = format!("{origin}, round {}: {error:#}", round + 1);
            eprintln!("  {failure}");
            outcome.failures.push(failure);
        }
        outcome.comparison.add(origin, figures);
        let seconds = started.elapsed().as_secs();
        eprintln!("  round {} of {rounds}, {origin}: {seconds} s", round + 1);
    }
    outcome
}

/// Turns: both origins in every round, and every round begins with the one that ended the last.
fn order(rounds: usize) -> impl Iterator<Item = (usize, Origin)> {
    (0..rounds).flat_map(|round| {
        let pair = match round % 2 {
            0 => [Origin::Ours, Origin::Upstream],
            _ => [Origin::Upstream, Origin::Ours],
        };
        pair.map(|origin| (round, origin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_alternate_and_neither_side_is_always_first() {
        use Origin::{Ours, Upstream};
        let turns: Vec<_> = order(3).map(|(_, origin)| origin).collect();
        assert_eq!(turns, [Ours, Upstream, Upstream, Ours, Ours, Upstream]);
    }
}
