//! The launcher: `provisioner launch --spec F` prepares itself and becomes the process.
//!
//! Runs in its own single-threaded process, before any runtime. Order matters: the lock first
//! (nothing happens if the process runs already), privileges last.
//!
//! Fixed paths: what a member sees is bound below `/mnt` ([`provisioner_api::paths`]).

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, dup2_stderr, dup2_stdout, execve, setgroups, setresgid, setresuid, setsid},
};
use provisioner_api::paths;

use crate::process::{
    Jail, LOCK, LaunchSpec, RECORD, RunRecord, open_log, start_time, whole_file_lock,
};

/// Exit code when the process runs already.
pub const EXIT_RUNS_ALREADY: i32 = 75;

/// Open files that a process may have, if the system allows as many.
const OPEN_FILES: u64 = 65_536;

/// Becomes the process of a specification. Returns only with an error.
pub fn launch(spec: &Path) -> anyhow::Result<std::convert::Infallible> {
    let text = fs::read(spec).with_context(|| format!("reading {}", spec.display()))?;
    let spec: LaunchSpec = serde_json::from_slice(&text).context("reading the specification")?;
    // Fails only for a process-group leader, which a spawned child is not; then the group is ours.
    let _ = setsid();
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(spec.dir.join(LOCK))
        .context("opening the lock")?;
    match fcntl(&lock, FcntlArg::F_SETLK(&whole_file_lock())) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => std::process::exit(EXIT_RUNS_ALREADY),
        Err(error) => return Err(error).context("locking"),
    }
    write_record(&spec)?;
    for procs in &spec.cgroups {
        fs::write(procs, b"0").with_context(|| format!("joining {}", procs.display()))?;
    }
    let log = open_log(&spec.log).context("opening the log")?;
    dup2_stdout(&log).context("redirecting")?;
    dup2_stderr(&log).context("redirecting")?;
    raise_open_files()?;
    if let Some(jail) = &spec.jail {
        enter_jail(jail)?;
    }
    // From here on the lock's descriptor is only held open, by this process, until it ends.
    fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).context("keeping the lock")?;
    debug_assert!(lock.as_raw_fd() > 2);
    become_program(&spec)
}

fn write_record(spec: &LaunchSpec) -> anyhow::Result<()> {
    let pid = i32::try_from(std::process::id()).context("process id")?;
    let start_time = start_time(pid).context("reading the start time of this process")?;
    let record = RunRecord { pid, start_time, hash: spec.hash.clone() };
    let json = serde_json::to_vec(&record)?;
    crate::durable::write(&spec.dir.join(RECORD), &json, 0o600).context("recording the process")
}

fn raise_open_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = hard.min(OPEN_FILES);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).context("raising the limit of open files")
}

fn enter_jail(jail: &Jail) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).context("unsharing mounts")?;
    // Slave: what the host unmounts goes away here too; nothing done here reaches the host.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("detaching")?;
    // Sources are opened first: they may lie below /mnt, which is covered next.
    let sources = jail
        .binds
        .iter()
        .map(|b| fs::File::open(&b.from).with_context(|| format!("opening {}", b.from.display())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let root = Some("size=64k,mode=0755");
    mount(Some("marina"), paths::ROOT, Some("tmpfs"), flags, root).context("mounting /mnt")?;
    for (bind, source) in jail.binds.iter().zip(&sources) {
        bind_mount(bind, source)?;
    }
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, paths::ROOT, none, read_only, root).context("closing /mnt")?;
    hide_mounts(&jail.hide)?;
    let tmp = Some("size=64m,mode=1777");
    mount(Some("marina"), "/tmp", Some("tmpfs"), flags, tmp).context("mounting /tmp")?;
    std::env::set_current_dir("/").context("leaving the directory")?;
    nix::sys::prctl::set_no_new_privs().context("no new privileges")?;
    let (uid, gid) = (Uid::from_raw(jail.uid), Gid::from_raw(jail.uid));
    setgroups(&[]).context("dropping groups")?;
    setresgid(gid, gid, gid).context("changing the group")?;
    setresuid(uid, uid, uid).context("changing the user")?;
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        bail!("privileges could be regained");
    }
    Ok(())
}

fn bind_mount(bind: &crate::process::Bind, source: &fs::File) -> anyhow::Result<()> {
    let none = None::<&str>;
    let what = || format!("binding {} to {}", bind.from.display(), bind.to.display());
    if !bind.to.starts_with(paths::ROOT) {
        bail!("{}: outside {}", what(), paths::ROOT);
    }
    fs::create_dir_all(&bind.to).with_context(what)?;
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(source.as_str()), &bind.to, none, MsFlags::MS_BIND, none).with_context(what)?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if !bind.writable {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(none, &bind.to, none, flags, none).with_context(what)
}

/// Detaches every mount below the directories, innermost first.
fn hide_mounts(hide: &[PathBuf]) -> anyhow::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading mounts")?;
    let below = |point: &Path| hide.iter().any(|dir| point.starts_with(dir));
    // Field 5 is the mount point, with blanks as octal escapes; ours have none.
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut points: Vec<&Path> = points.filter(|point| below(point)).collect();
    points.reverse();
    for point in points {
        // Already gone with an outer mount that was detached before: fine.
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    Ok(())
}

fn become_program(spec: &LaunchSpec) -> anyhow::Result<std::convert::Infallible> {
    let text = |text: &str| CString::new(text).context("an argument contains a zero byte");
    let program = CString::new(Path::new(&spec.program).as_os_str().as_bytes())?;
    let mut args = vec![program.clone()];
    for arg in &spec.args {
        args.push(text(arg)?);
    }
    let env = spec
        .env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    execve(&program, &args, &env).with_context(|| format!("starting {}", spec.program))
}
