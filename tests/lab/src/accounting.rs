//! How much processor time a process and its descendants have used: from a control group of
//! their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const ROOT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to let go of an emptied group.
const PATIENCE: Duration = Duration::from_secs(5);

/// A control group that counts processor time; removed when dropped, if it is empty.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    /// Makes the group `<parent>/<name>`, or finds it.
    ///
    /// # Errors
    /// This host counts no processor time, or the group cannot be made.
    pub fn new(parent: &str, name: &str) -> anyhow::Result<Self> {
        let dir = hierarchy()?.join(parent).join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The file by which a process joins.
    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Processor time used so far, by all that ever were in the group.
    ///
    /// # Errors
    /// The kernel's file cannot be read.
    pub fn used(&self) -> anyhow::Result<Duration> {
        let nanoseconds = self.dir.join("cpuacct.usage");
        if nanoseconds.exists() {
            return Ok(Duration::from_nanos(number(&fs::read_to_string(&nanoseconds)?)?));
        }
        let text = fs::read_to_string(self.dir.join("cpu.stat")).context("reading cpu.stat")?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(Duration::from_micros(number(usage.context("cpu.stat has no usage_usec")?)?))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir(&self.dir) {
            let gone = error.kind() == std::io::ErrorKind::NotFound;
            if gone || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Succeeds for the last one.
        let _ = self.dir.parent().map(fs::remove_dir);
    }
}

/// Removes what an earlier lab of the same name left.
///
/// # Errors
/// Something in it still runs.
pub fn remove(parent: &str) -> anyhow::Result<()> {
    let top = hierarchy()?.join(parent);
    for entry in fs::read_dir(&top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    match fs::remove_dir(&top) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", top.display()))
        }
        _ => Ok(()),
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.trim().parse().context("the kernel's count is no number")
}

fn hierarchy() -> anyhow::Result<PathBuf> {
    let root = Path::new(ROOT);
    let found = ["", "cpuacct", "cpu,cpuacct", "cpuacct,cpu"].map(|name| root.join(name));
    let counts = |dir: &PathBuf| {
        dir.join("cpuacct.usage").exists() || dir.join("cgroup.controllers").exists()
    };
    match found.into_iter().find(counts) {
        Some(dir) => Ok(dir),
        None => bail!("no control groups that count processor time below {ROOT}"),
    }
}
