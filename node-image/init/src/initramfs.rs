//! The RAM-disk stage: modules, the root disk, and over to it.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::mount::{MsFlags, mount};

use crate::console::Console;
use crate::mounts::mount_new;

const INIT: &str = "/usr/local/bin/node-init";
const NEW_ROOT: &str = "/root";
const DISK_PATIENCE: Duration = Duration::from_secs(20);

/// Mounts the root disk and becomes the init on it.
///
/// # Errors
/// A module does not load, there is no disk, or it cannot be mounted.
pub fn run(console: &Console) -> anyhow::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount_new("proc", "/proc", "proc", quiet, None)?;
    mount_new("sysfs", "/sys", "sysfs", quiet, None)?;
    mount_new("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, Some("mode=755"))?;
    let command_line = std::fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    if command_line.split_whitespace().any(|word| word == "marina.probe") {
        // A driver asks whether guests run at all on this accelerator: this is the answer.
        console.step("probe ok");
        return crate::power::off();
    }
    load_modules()?;
    let disk = command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("root="))
        .unwrap_or("/dev/vda");
    wait_for(Path::new(disk))?;
    mount(Some(disk), NEW_ROOT, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
        .with_context(|| format!("mounting {disk}"))?;
    console.step("root disk mounted");
    // Its memory is the machine's memory.
    let _ = std::fs::remove_dir_all("/modules");
    switch_root()
}

fn load_modules() -> anyhow::Result<()> {
    let order = std::fs::read_to_string("/modules/order").context("reading /modules/order")?;
    for path in order.lines() {
        let file = File::open(path).with_context(|| format!("opening {path}"))?;
        // SAFETY: the descriptor is open for the whole call, the parameters are a valid C string,
        // and the kernel keeps neither.
        #[allow(unsafe_code)]
        let result =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        let error = std::io::Error::last_os_error();
        // No such device: this machine has none of what the module drives.
        let absent = matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENODEV));
        if result != 0 && !absent {
            return Err(error).with_context(|| format!("loading {path}"));
        }
    }
    Ok(())
}

fn wait_for(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + DISK_PATIENCE;
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("there is no {} after {} s", path.display(), DISK_PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn switch_root() -> anyhow::Result<()> {
    for dir in ["proc", "sys", "dev"] {
        let (from, to) = (format!("/{dir}"), format!("{NEW_ROOT}/{dir}"));
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("moving {from}"))?;
    }
    std::env::set_current_dir(NEW_ROOT).context("entering the root disk")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("moving the root disk to /")?;
    nix::unistd::chroot(".").context("changing root")?;
    std::env::set_current_dir("/").context("entering the new root")?;
    let init = CString::new(INIT).expect("the path has no zero byte");
    match nix::unistd::execv(&init, &[&init]) {
        Ok(never) => match never {},
        Err(e) => Err(e).with_context(|| format!("starting {INIT}")),
    }
}
