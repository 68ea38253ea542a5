//! Processes that outlive the agent: started through the launcher, found again by their lock.
//!
//! Each supervised process has a directory with a `lock` file. The launcher takes a POSIX record
//! lock on it and then becomes the process (`exec` keeps the lock, children do not inherit it).
//! The kernel therefore says who runs ("which pid holds the lock"), and a second start of the
//! same process fails at the lock: it cannot happen, whenever an agent is killed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sys::{
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

/// What the launcher is to do before it becomes the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Directory with `lock` and `run.json`.
    pub dir: PathBuf,
    /// Identifies this specification; stored in `run.json`.
    pub hash: String,
    /// Program as the process will see it (after the binds).
    pub program: String,
    /// Arguments without the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// File to which standard output and error are appended.
    pub log: PathBuf,
    /// `cgroup.procs` files to join.
    pub cgroups: Vec<PathBuf>,
    /// Isolation; `None` for the host's own helpers (worker drivers).
    pub jail: Option<Jail>,
}

/// How a tenant's process is kept apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// User and group id.
    pub uid: u32,
    /// What it sees, and where.
    pub binds: Vec<Bind>,
    /// Mounts below these directories are detached in its mount namespace, so that it neither
    /// sees nor pins other tenants' mounts.
    pub hide: Vec<PathBuf>,
}

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Directory on the host.
    pub from: PathBuf,
    /// Directory below [`provisioner_api::paths::ROOT`].
    pub to: PathBuf,
    /// May be written.
    pub writable: bool,
}

/// What the launcher records about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
    /// [`LaunchSpec::hash`].
    pub hash: String,
}

/// Name of the lock file in a process's directory.
pub const LOCK: &str = "lock";
/// Name of the launcher's record in a process's directory.
pub const RECORD: &str = "run.json";
const SPEC: &str = "launch.json";

/// A running process, ours or adopted.
#[derive(Debug)]
pub struct Running {
    /// Process id.
    pub pid: i32,
    /// Hash of the specification that it was started with; empty when unknown.
    pub hash: String,
    pidfd: AsyncFd<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was adopted: only its parent knows.
    Unknown,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
            Self::Unknown => f.write_str("ended"),
        }
    }
}

impl Running {
    fn open(pid: i32, hash: String) -> io::Result<Self> {
        let fd = pidfd_open(pid)?;
        Ok(Self { pid, hash, pidfd: register(fd)? })
    }

    /// Waits until it has ended, and reaps it if it is a child. May be dropped and called again.
    pub async fn ended(&self) -> Ended {
        // A pidfd becomes readable when the process ends, and stays so.
        if let Err(error) = self.pidfd.readable().await {
            tracing::warn!(pid = self.pid, %error, "cannot wait for a process");
        }
        match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Ended::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Signal(signal as i32),
            _ => Ended::Unknown,
        }
    }

    /// Sends a signal. A process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            tracing::warn!(pid = self.pid, %error, "cannot signal a process");
        }
    }
}

/// The process that holds the lock of a directory, if one runs.
pub fn find(dir: &Path) -> io::Result<Option<Running>> {
    let Some(pid) = lock_holder(dir)? else { return Ok(None) };
    let record = record(dir).filter(|r| r.pid == pid && start_time(pid) == Some(r.start_time));
    let hash = record.map(|record| record.hash).unwrap_or_default();
    let running = match Running::open(pid, hash) {
        Ok(running) => running,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The pid could have been reused between asking and opening: then it does not hold the lock.
    Ok((lock_holder(dir)? == Some(pid)).then_some(running))
}

/// Starts a process by way of the launcher (`<launcher> launch --spec <file>`).
pub fn start(launcher: &Path, spec: &LaunchSpec) -> io::Result<Running> {
    fs::create_dir_all(&spec.dir)?;
    let file = spec.dir.join(SPEC);
    let json = serde_json::to_vec_pretty(spec).map_err(io::Error::other)?;
    crate::durable::write(&file, &json, 0o600)?;
    let log = open_log(&spec.log)?;
    // The handle is dropped without waiting: `Running::ended` reaps by pid.
    let child = Command::new(launcher)
        .arg("launch")
        .arg("--spec")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Running::open(pid, spec.hash.clone())
}

/// Opens a log for appending; only the agent's user may read it.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn record(dir: &Path) -> Option<RunRecord> {
    serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()
}

/// Field 22 of `/proc/<pid>/stat`: the start time in clock ticks since boot.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may contain anything, also parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A write lock over the whole file.
pub(crate) fn whole_file_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn lock_holder(dir: &Path) -> io::Result<Option<i32>> {
    let file = match OpenOptions::new().read(true).write(true).open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lock = whole_file_lock();
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).map_err(io::Error::from)?;
    let free = lock.l_type == libc::F_UNLCK as libc::c_short;
    Ok((!free && lock.l_pid > 0).then_some(lock.l_pid))
}

#[allow(unsafe_code)]
fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd returns the same open descriptor for as long as it lives, and the AsyncFd
    // owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

#[allow(unsafe_code)]
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor (close-on-exec, as pidfd_open(2)
    // says) that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(unsafe_code)]
fn pidfd_send_signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open as long as it is borrowed; a null siginfo is allowed
    // (pidfd_send_signal(2)).
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, no_info, 0)
    };
    Errno::result(sent)?;
    Ok(())
}
