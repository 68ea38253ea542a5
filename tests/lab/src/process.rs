//! One server of a lab or a benchmark: in a network namespace, on a processor, in a control group.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::accounting::Group;

/// How long a server may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of its log and its control group.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Network namespace to enter, as a path such as `/run/netns/x`.
    pub netns: Option<PathBuf>,
    /// Processor to stay on.
    pub cpu: Option<usize>,
    /// Variables beside those of the lab itself.
    pub env: Vec<(String, String)>,
}

impl Spec {
    /// A server without arguments.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            netns: None,
            cpu: None,
            env: Vec::new(),
        }
    }

    /// Adds `--flag=value`.
    pub fn flag(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        let mut arg = OsString::from(format!("--{name}="));
        arg.push(value);
        self.args.push(arg);
        self
    }

    /// Adds several flags.
    pub fn flags(&mut self, flags: &[(&str, String)]) -> &mut Self {
        for (name, value) in flags {
            self.flag(name, value);
        }
        self
    }

    /// The command, with everything but output and control group.
    ///
    /// The child is killed when the *thread* that starts it ends, so a server must be started by a
    /// thread that outlives it.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        enter(&mut command, self.netns.as_deref(), self.cpu)?;
        Ok(command)
    }
}

/// Lets a command run in a network namespace, on a processor, and die with the calling thread.
///
/// # Errors
/// There is no such namespace or processor.
#[allow(unsafe_code)]
pub fn enter(
    command: &mut Command,
    netns: Option<&Path>,
    cpu: Option<usize>,
) -> anyhow::Result<()> {
    let netns = match netns {
        Some(path) => Some(File::open(path).with_context(|| format!("no {}", path.display()))?),
        None => None,
    };
    let set = match cpu {
        Some(cpu) => {
            let mut set = CpuSet::new();
            set.set(cpu).with_context(|| format!("processor {cpu}"))?;
            Some(set)
        }
        None => None,
    };
    let prepare = move || -> io::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // What the lab blocks for itself is not for its children.
        SigSet::empty().thread_set_mask()?;
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(set) = &set {
            sched_setaffinity(Pid::from_raw(0), set)?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it allocates nothing between fork and exec.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    child: Child,
    group: Group,
    log: PathBuf,
}

impl Process {
    /// Starts it; its output is appended to `<logs>/<name>.log`. `parent` is the control group in
    /// which it gets one of its own.
    ///
    /// # Errors
    /// The executable cannot be started.
    pub fn start(spec: Spec, parent: &str, logs: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("making {}", logs.display()))?;
        let group = Group::new(parent, &spec.name)?;
        let log = logs.join(format!("{}.log", spec.name));
        let child = spawn(&spec, &group, &log)?;
        Ok(Self { spec, child, group, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started with.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Processor time that it has used since it was first started.
    ///
    /// # Errors
    /// The kernel's count cannot be read.
    pub fn used(&self) -> anyhow::Result<Duration> {
        self.group.used()
    }

    /// Proportional set size, bytes: its memory, with shared pages divided among their users.
    ///
    /// # Errors
    /// It has ended.
    pub fn pss(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib.context("smaps_rollup has no Pss")?.trim().parse()?;
        Ok(kib * 1024)
    }

    /// An error with the last lines of its log when it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}). {}", self.spec.name, self.last_words()),
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
        format!("Its log, {}, ends with:\n  {tail}", self.log.display())
    }

    /// Asks it to end, and kills it if it does not.
    pub fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after it was stopped or killed.
    ///
    /// # Errors
    /// The executable cannot be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child = spawn(&self.spec, &self.group, &self.log)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(unsafe_code)]
fn spawn(spec: &Spec, group: &Group, log: &Path) -> anyhow::Result<Child> {
    let output = File::options().create(true).append(true).open(log);
    let output = output.with_context(|| format!("writing {}", log.display()))?;
    let procs = File::options().write(true).open(group.procs()).context("joining a group")?;
    let mut command = spec.command()?;
    let join = move || -> io::Result<()> {
        // "0" is the writer itself.
        nix::unistd::write(&procs, b"0")?;
        Ok(())
    };
    // SAFETY: one system call, no allocation.
    unsafe { command.pre_exec(join) };
    command
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting {}", spec.program.display()))
}
