//! The worker's process 1 on its way in: from a process of the host to the init of the node.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use driver_local::Worker;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup;

/// Said to the keeper when the network namespace exists.
pub const READY: &[u8; 6] = b"ready\n";
/// Said by the keeper when the network is wired.
pub const GO: &[u8; 3] = b"go\n";

const INIT: &str = "/usr/local/bin/node-init";
const NONE: Option<&str> = None;

/// Enters the worker and becomes its init.
///
/// # Errors
/// A step fails; this process, and with it the worker, ends.
pub fn run(worker: &Worker) -> anyhow::Result<()> {
    if std::process::id() != 1 {
        bail!("this step runs as the first process of a process namespace");
    }
    // First the groups: a group namespace begins where its maker is.
    cgroup::join(&worker.record.worker_id)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .context("making namespaces")?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY).and_then(|()| stdout.flush()).context("telling the keeper")?;
    let mut answer = [0; GO.len()];
    std::io::stdin().read_exact(&mut answer).context("the keeper gave up")?;
    let root = worker.path("root");
    make_root(worker, &root)?;
    change_root(&root)?;
    become_init()
}

/// Mounts the worker's root file system. Nothing of this reaches the host.
fn make_root(worker: &Worker, root: &Path) -> anyhow::Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("detaching from the host's mounts")?;
    let lower = worker.record.image_dir.join("rootfs");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        escaped(&lower)?,
        escaped(&worker.path("upper"))?,
        escaped(&worker.path("work"))?
    );
    mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mounting {}", root.display()))?;
    for (name, target) in
        [("containerd", "var/lib/containerd"), ("kubelet", "var/lib/kubelet"), ("log", "var/log")]
    {
        let (from, to) = (worker.path(name), root.join(target));
        mount(Some(&from), &to, NONE, MsFlags::MS_BIND, NONE)
            .with_context(|| format!("mounting {target}"))?;
    }
    let run = root.join("run");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &run, Some("tmpfs"), flags, Some("mode=755")).context("mounting run")?;
    let own = run.join("marina");
    fs::create_dir(&own).context("creating run/marina")?;
    let user_data = fs::read(worker.path("user-data.json")).context("reading the user-data")?;
    fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(own.join("user-data.json"))
        .and_then(|mut file| file.write_all(&user_data))
        .context("writing the user-data")?;
    fs::write(own.join("meminfo"), meminfo(worker.record.memory_mib)?).context("writing meminfo")
}

/// `/proc/meminfo` is about the whole host; what a worker takes for its memory is its limit.
fn meminfo(memory_mib: u64) -> anyhow::Result<String> {
    let host = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    Ok(limited_meminfo(&host, memory_mib * 1024))
}

fn limited_meminfo(host: &str, limit_kib: u64) -> String {
    let limited = |line: &str| -> String {
        let parsed = line.split_once(':').and_then(|(key, rest)| {
            let value: u64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((key, value))
        });
        match parsed {
            Some((key @ ("SwapTotal" | "SwapFree"), _)) => format!("{key}: 0 kB\n"),
            Some((key, value)) => format!("{key}: {} kB\n", value.min(limit_kib)),
            None => format!("{line}\n"),
        }
    };
    host.lines().map(limited).collect()
}

/// Overlay options are separated by commas, lower layers by colons.
fn escaped(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("the path of a worker is not UTF-8")?;
    if text.contains(',') {
        bail!("{text} contains a comma, which overlay file systems cannot be mounted with");
    }
    Ok(text.replace('\\', "\\\\").replace(':', "\\:"))
}

/// Makes `root` the root, and lets go of the host's.
fn change_root(root: &Path) -> anyhow::Result<()> {
    std::env::set_current_dir(root).context("entering the root")?;
    // The old root is stacked on the new one, from where it is taken away.
    nix::unistd::pivot_root(".", ".").context("changing root")?;
    umount2(".", MntFlags::MNT_DETACH).context("letting go of the host's root")?;
    std::env::set_current_dir("/").context("entering the new root")
}

fn become_init() -> anyhow::Result<()> {
    let words: [CString; 2] = [INIT, "--sandbox"].map(|w| CString::new(w).expect("no zero bytes"));
    // Nothing of the host's environment reaches the worker.
    let environment = [CString::new("container=marina").expect("no zero byte")];
    match nix::unistd::execve(&words[0], &words, &environment) {
        Ok(never) => match never {},
        Err(e) => Err(e).with_context(|| format!("starting {INIT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_limit_and_swap_is_none() {
        let host = "MemTotal:  24000 kB\nMemFree: 500 kB\nSwapTotal: 9 kB\nHugePages_Total:  0\n";
        let limited = limited_meminfo(host, 1000);
        assert_eq!(
            limited,
            "MemTotal: 1000 kB\nMemFree: 500 kB\nSwapTotal: 0 kB\nHugePages_Total:  0\n"
        );
    }

    #[test]
    fn paths_that_an_overlay_cannot_take_are_refused() {
        assert_eq!(escaped(Path::new("/a:b")).unwrap(), "/a\\:b");
        assert!(escaped(Path::new("/a,b")).is_err());
    }
}
