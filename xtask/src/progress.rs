//! What the user sees while something takes longer than two seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A running step: a spinner with the elapsed time on a terminal, one line at the start and one
/// at the end elsewhere.
pub struct Step {
    bar: ProgressBar,
    name: String,
    started: Instant,
}

impl Step {
    /// Starts a step. `name` reads as an activity: "Baking the node image".
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}")
                    .expect("the template is a constant that parses"),
            );
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            eprintln!("  {name} ...");
            ProgressBar::hidden()
        };
        Self { bar, name, started: Instant::now() }
    }

    /// Shows what the step does now.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.trim().to_owned());
    }

    /// Ends the step. Steps that took under two seconds leave no line behind on a terminal.
    pub fn done(self) {
        self.bar.finish_and_clear();
        let took = self.started.elapsed();
        if took >= Duration::from_secs(2) {
            eprintln!("  {} took {:.1} s", self.name, took.as_secs_f64());
        }
    }
}
