//! Running other programs: output to a log, the last lines in the error.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::progress::Step;

/// Runs a command to its end, shows its last line as progress, keeps its output in `log`.
pub fn run_logged(step: &Step, command: &mut Command, log: &Path) -> anyhow::Result<()> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("no second pipe end")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    // The command object holds the pipe's writing ends: without this the reader never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut tail = std::collections::VecDeque::new();
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        use std::io::Write;
        writeln!(file, "{line}").context("cannot write the log")?;
        step.say(&line);
        tail.push_back(line);
        if tail.len() > 30 {
            tail.pop_front();
        }
    }
    let status = child.wait().context("lost the child process")?;
    if !status.success() {
        let tail = tail.make_contiguous().join("\n");
        bail!("{program} failed ({status}). Its last lines (all: {}):\n{tail}", log.display());
    }
    Ok(())
}

/// Runs a command with this terminal, for programs that show progress of their own.
pub fn run_shown(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}
