//! Knowing a process again: its id may be used by another one after it ended.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot.
    pub start_ticks: u64,
    /// Which boot of the machine.
    pub boot_id: String,
}

impl Identity {
    /// The process that has this id now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let (state, start_ticks) =
            stat(pid).with_context(|| format!("process {pid} does not exist"))?;
        if state == 'Z' {
            bail!("process {pid} has ended");
        }
        Ok(Self { pid, start_ticks, boot_id: boot_id()? })
    }

    /// Whether it still runs. One that has ended and was not collected by its parent does not.
    pub fn alive(&self) -> bool {
        boot_id().is_ok_and(|id| id == self.boot_id)
            && stat(self.pid)
                .is_some_and(|(state, start)| start == self.start_ticks && !"ZX".contains(state))
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.alive()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // It may end between the check and the signal: then there is nothing to do.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it and waits until it is gone.
    ///
    /// # Errors
    /// It is still there after `patience`.
    pub fn end(&self, patience: Duration) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL);
        self.wait_gone(patience)
    }

    /// Waits until it is gone.
    ///
    /// # Errors
    /// It is still there after `patience`.
    pub fn wait_gone(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.alive() {
            if Instant::now() > deadline {
                bail!("process {} does not end", self.pid);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// This boot of the machine.
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading boot_id")?;
    Ok(text.trim().to_owned())
}

/// State and start time, fields 3 and 22 of proc_pid_stat(5).
fn stat(pid: u32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The second field is the program's name in parentheses and may contain anything.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let text = "17 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(parse_stat(text), Some(('S', 4711)));
    }

    #[test]
    fn a_process_is_alive_until_it_ends_even_if_uncollected() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.alive());
        assert!(!Identity { start_ticks: identity.start_ticks + 1, ..identity.clone() }.alive());
        assert!(!Identity { boot_id: "other".into(), ..identity.clone() }.alive());
        identity.end(Duration::from_secs(5)).unwrap();
        assert!(!identity.alive());
        child.wait().unwrap();
    }
}
