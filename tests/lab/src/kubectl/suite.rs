//! One test: a shell that runs a function of upstream's.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::log::complaint;
use super::plane::Plane;
use super::tree::{Suite, Tree};
use crate::conformance::{Outcome, RUNNING, State};

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
/// How often a level is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Runs tests one after another.
pub struct Runner {
    tree: PathBuf,
    driver: PathBuf,
    temporary: PathBuf,
    certificate: PathBuf,
    logs: PathBuf,
}

impl Runner {
    /// With temporary files below `dir` and the tests' logs in `logs`.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn new(tree: &Tree, dir: &Path, logs: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        Ok(Self {
            tree: tree.path().to_owned(),
            driver: tree.driver(),
            temporary: dir.join("tmp"),
            certificate: dir.join("files/kube-apiserver/apiserver.crt"),
            logs,
        })
    }

    /// Where the tests' logs are.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Runs one.
    ///
    /// # Errors
    /// It cannot be started, or was interrupted.
    pub fn run(&self, suite: &Suite, plane: &mut Plane) -> anyhow::Result<Outcome> {
        if self.temporary.exists() {
            fs::remove_dir_all(&self.temporary).context("removing temporary files")?;
        }
        fs::create_dir_all(&self.temporary).context("making a temporary directory")?;
        // Upstream lets its API server make one there, and two of the tests read it.
        fs::copy(&self.certificate, self.temporary.join("apiserver.crt"))
            .context("copying the server's certificate")?;
        let path = self.logs.join(format!("{}.log", suite.function));
        let started = Instant::now();
        let mut child = self.start(suite, plane, &path)?;
        let ended = wait(&mut child, started + PATIENCE);
        // Whatever it has left running.
        let _ = killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL);
        RUNNING.store(0, Ordering::SeqCst);
        let message = match ended? {
            Some(status) if status.signal().is_some() => bail!("{} was killed", suite.function),
            Some(status) if status.success() => None,
            Some(_) => {
                let text =
                    fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                Some(complaint(&String::from_utf8_lossy(&text)))
            }
            None => {
                child.wait().context("waiting for a test that was killed")?;
                Some(format!("did not end within {} minutes", PATIENCE.as_secs() / 60))
            }
        };
        // A server that gave up explains more than the test that was after it.
        let message = plane.ended().map(|text| one_line(&text)).or(message);
        Ok(Outcome {
            test: suite.name(),
            state: if message.is_some() { State::Failed } else { State::Passed },
            seconds: started.elapsed().as_secs_f64(),
            message: message.unwrap_or_default(),
        })
    }

    fn start(&self, suite: &Suite, plane: &Plane, log: &Path) -> anyhow::Result<Child> {
        let output = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let mut command = Command::new("bash");
        command
            .arg(&self.driver)
            .arg(&suite.function)
            .current_dir(&self.tree)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.temporary)
            .env("TMPDIR", &self.temporary)
            // kubectl is of no server's release but upstream's.
            .env("ALLOW_SKEW", "true")
            // The scripts ask what colours it has, and end if it has none.
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        plane.inside(&mut command)?;
        // A group of its own, which ends as a whole.
        let child = command.process_group(0).spawn().context("starting bash")?;
        RUNNING.store(i32::try_from(child.id())?, Ordering::SeqCst);
        Ok(child)
    }
}

/// How it ended; `None` when it did not in time.
fn wait(child: &mut Child, deadline: Instant) -> anyhow::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("waiting for a test")? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(300).collect()
}
