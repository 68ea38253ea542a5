//! The worker's root file system: the base, plus our binaries, configuration and images.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::base::Base;
use crate::command::run;

/// Our programs in the image, all below `/usr/local/bin`.
pub const PROGRAMS: &[&str] = &["kubelet", "kube-proxy", "node-agent", "node-init"];

/// The configuration that does not depend on the node; node-init writes the rest when it boots.
pub const FILES: &[(&str, &str)] = &[
    ("etc/containerd/config.toml", include_str!("../files/containerd.toml")),
    ("etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    // A worker's own network reaches its cluster and nothing else; pods use the cluster's DNS.
    ("etc/resolv.conf", ""),
];

/// Directories that programs expect to find, and that mounts need as a place.
const DIRECTORIES: &[&str] = &[
    "etc/cni/net.d",
    "etc/containerd/certs.d",
    "etc/kubernetes",
    "opt/cni",
    "run",
    "tmp",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/log/containers",
    "var/log/pods",
];

/// Makes the tree in `target`. `programs` is a directory with [`PROGRAMS`] ready to install,
/// `images` a containerd state directory.
///
/// Files are hard links to the base where the file system allows it, so nothing may write into
/// the tree afterwards.
///
/// # Errors
/// Something is missing or cannot be written.
pub fn make(base: &Base, programs: &Path, images: &Path, target: &Path) -> anyhow::Result<()> {
    link_or_copy(&base.rootfs, target)?;
    for dir in DIRECTORIES {
        fs::create_dir_all(target.join(dir)).with_context(|| format!("creating {dir}"))?;
    }
    for (path, text) in FILES {
        install(&target.join(path), text.as_bytes(), 0o644)?;
    }
    let bin = target.join("usr/local/bin");
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        let bytes =
            fs::read(programs.join(program)).with_context(|| format!("reading {program}"))?;
        install(&bin.join(program), &bytes, 0o755)?;
    }
    // Debian has the plugins in a directory of its own; other distributions' charts look here.
    remove(&target.join("opt/cni/bin"))?;
    symlink("/usr/lib/cni", target.join("opt/cni/bin"))?;
    let store = target.join("var/lib/containerd");
    remove(&store)?;
    link_or_copy(images, &store)?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o755))?;
    clamp_times(target)
}

/// Copies a directory with everything in it, by hard links when both are on one file system.
/// Neither of the two may be written into afterwards, other than by [`install`].
///
/// # Errors
/// Something cannot be read, or `to` cannot be written.
pub fn link_or_copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if cp(&["-al"], from, to).is_err() {
        remove(to)?;
        cp(&["-a"], from, to)?;
    }
    Ok(())
}

/// Copies a directory with everything in it, so that the copy may be written into.
///
/// # Errors
/// Something cannot be read, or `to` cannot be written.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    cp(&["-a", "--reflink=auto"], from, to)
}

fn cp(how: &[&str], from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("cp").args(how).arg("-T").arg(from).arg(to))
        .with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

/// Writes a file as a new one: an existing file may be a hard link into the cache.
///
/// # Errors
/// It cannot be written.
pub fn install(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Removes a file or a whole directory; nothing there is fine.
///
/// # Errors
/// It exists and cannot be removed.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    };
    gone.with_context(|| format!("removing {}", path.display()))
}

/// Gives everything below `dir` the one fixed time of the image.
///
/// # Errors
/// A file cannot be changed.
pub fn clamp_times(dir: &Path) -> anyhow::Result<()> {
    let time = TimeSpec::new(crate::SOURCE_DATE_EPOCH, 0);
    let set = |path: &Path| {
        utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
            .with_context(|| format!("setting the time of {}", path.display()))
    };
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            clamp_times(&entry.path())?;
        } else {
            set(&entry.path())?;
        }
    }
    set(dir)
}
