//! The part of QEMU's machine protocol that a driver needs: one command, one answer.
//!
//! QEMU sends JSON objects, one per line: a greeting first, then answers and, at any time, events.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// A machine that is that busy is asked again next time.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many lines are read in search of an answer.
const LINES: usize = 100;

/// Executes `command` on the machine whose socket is `name` in `dir`, and returns its answer.
///
/// # Errors
/// The machine has ended, does not answer in time, or refuses.
pub fn execute(dir: &Path, name: &str, command: &str) -> anyhow::Result<Value> {
    // Socket addresses end at 107 bytes; the directory may be deeper than that.
    let handle = File::open(dir).context("opening the worker's directory")?;
    let address = format!("/proc/self/fd/{}/{name}", handle.as_raw_fd());
    let stream = UnixStream::connect(address).context("connecting to the machine")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{}", json!({"execute": command})).context("asking the machine")?;
    }
    // The first answer is to the capabilities.
    let mut answers = 0;
    for line in lines.by_ref().take(LINES) {
        let value: Value = serde_json::from_str(&line.context("waiting for the machine")?)?;
        if let Some(error) = value.get("error") {
            bail!("the machine refuses {command}: {}", error["desc"].as_str().unwrap_or("?"));
        }
        if let Some(answer) = value.get("return") {
            answers += 1;
            if answers == 2 {
                return Ok(answer.clone());
            }
        }
    }
    bail!("the machine does not answer")
}

/// What is unusual about a machine that runs, if anything.
pub fn remark(dir: &Path, name: &str) -> Option<String> {
    let answer = execute(dir, name, "query-status").ok()?;
    match answer["status"].as_str()? {
        "running" | "prelaunch" => None,
        other => Some(format!("the machine is stopped: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn machine(dir: &Path, lines: &'static str) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(dir.join("qmp.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            let _ = BufReader::new(stream).lines().count();
        })
    }

    #[test]
    fn events_between_the_answers_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(
            dir.path(),
            "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"RTC_CHANGE\"}\n\
             {\"return\":{\"status\":\"io-error\"}}\n",
        );
        let said = remark(dir.path(), "qmp.sock").unwrap();
        assert_eq!(said, "the machine is stopped: io-error");
        machine.join().unwrap();
    }

    #[test]
    fn a_machine_that_is_gone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(execute(dir.path(), "qmp.sock", "query-status").is_err());
    }
}
