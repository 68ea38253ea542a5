//! A child process that is started again when it dies.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Longest pause before a service is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A service that ran for this long is healthy: its next start does not wait.
const STABLE: Duration = Duration::from_secs(10);
/// A service that ran for this long has bound its addresses and opened its files.
const STEADY: Duration = Duration::from_millis(700);
/// A service that ended this often in a row needs somebody to look at it.
const ENDINGS: u32 = 3;
/// How long a service may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// One process with a log file.
pub struct Service {
    name: &'static str,
    command: Command,
    log: PathBuf,
    child: Option<Child>,
    started: Instant,
    backoff: Duration,
    /// How often it ended before it was stable.
    endings: u32,
}

impl Service {
    /// A service that is not started yet.
    pub fn new(name: &'static str, mut command: Command, logs: &Path) -> Self {
        // A group of its own: Ctrl-C in the terminal reaches this program, which stops the services
        // in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        end_with_parent(&mut command);
        Self {
            name,
            command,
            log: logs.join(format!("{name}.log")),
            child: None,
            started: Instant::now(),
            backoff: Duration::ZERO,
            endings: 0,
        }
    }

    /// Starts it; its output is appended to its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let open = || -> std::io::Result<File> {
            OpenOptions::new().create(true).append(true).open(&self.log)
        };
        let log = || open().with_context(|| format!("cannot write {}", self.log.display()));
        let (out, err) = (log()?, log()?);
        let child = self.command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        self.child = Some(child.with_context(|| format!("{} cannot be started", self.name))?);
        self.started = Instant::now();
        Ok(())
    }

    /// Starts it again if it ended and its pause is over.
    pub fn tend(&mut self) {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return };
            self.child = None;
            let stable = self.started.elapsed() > STABLE;
            self.endings = if stable { 1 } else { self.endings + 1 };
            self.backoff = match stable {
                true => Duration::ZERO,
                false => (self.backoff * 2).clamp(Duration::from_millis(250), BACKOFF_MAX),
            };
            eprintln!(
                "  {} ended ({status}); starting it again. Log: {}",
                self.name,
                self.log.display()
            );
            self.started = Instant::now();
        }
        if self.started.elapsed() >= self.backoff
            && let Err(error) = self.start()
        {
            eprintln!("  {error:#}");
        }
    }

    /// True when it ended again and again without getting anywhere.
    pub fn keeps_ending(&self) -> bool {
        self.endings >= ENDINGS
    }

    /// True when it runs and did not just begin to.
    pub fn is_steady(&self) -> bool {
        self.child.is_some() && self.started.elapsed() >= STEADY
    }

    /// Asks it to stop, and kills it if it does not.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let deadline = Instant::now() + STOP_WITHIN;
        terminate(&child);
        while Instant::now() < deadline {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The end of its log, for an error message.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        let lines: Vec<_> = lines.into_iter().rev().collect();
        format!("{} ({}):\n  {}", self.name, self.log.display(), lines.join("\n  "))
    }
}

/// A supervisor that is killed outright takes its services with it: ones left behind would hold the
/// addresses that the next start needs.
#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    let ask = || {
        // SAFETY: prctl with these arguments touches no memory, and is async-signal-safe.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing before exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, ask) };
}

#[allow(unsafe_code)]
fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: kill() touches no memory of ours; the child is not reaped yet, so the id is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
