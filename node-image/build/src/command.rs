//! Running external programs, with their own words in the error.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

/// How many of a failed program's last lines go into the error.
const TAIL: usize = 12;

/// Runs `command` to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails; then the error ends with the last lines of its standard error.
pub fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = name(command);
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| not_started(&name))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = text.lines().collect();
        bail!("{name}: {status}\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
    }
    Ok(stdout)
}

/// Runs `command` with `input` on its standard input and hands each line of its standard error to
/// `line` as it is printed.
///
/// # Errors
/// As [`run`].
pub fn run_with_lines(
    command: &mut Command,
    input: &str,
    line: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    use std::io::Write;
    let name = name(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| not_started(&name))?;
    child
        .stdin
        .take()
        .expect("stdin was asked for above")
        .write_all(input.as_bytes())
        .with_context(|| format!("writing to {name}"))?;
    let stderr = child.stderr.take().expect("stderr was asked for above");
    let mut last = std::collections::VecDeque::new();
    for text in BufReader::new(stderr).lines().map_while(Result::ok) {
        line(&text);
        last.push_back(text);
        if last.len() > TAIL {
            last.pop_front();
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    if !status.success() {
        bail!("{name}: {status}\n{}", Vec::from(last).join("\n"));
    }
    Ok(())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn not_started(name: &str) -> String {
    format!("starting {name} (is its package installed?)")
}
