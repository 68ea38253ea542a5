//! subPath: one file or directory inside a volume, mounted on its own.
//!
//! The volume's content belongs to the pod, which may put symbolic links into it that point at
//! the node. So the path is resolved by the kernel with links confined to the volume
//! (`RESOLVE_BENEATH`), and what was found is bound by its descriptor, not by its name.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};

use super::mounts;

fn open(dir: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH);
    openat2(dir, path, how)
}

/// Opens `path` inside `volume`; a directory that is missing is made, with the mode of the one
/// that it is made in.
fn resolve(volume: &Path, path: &Path) -> Result<OwnedFd, String> {
    let fail =
        |e: &dyn std::fmt::Display| format!("subPath {:?} in {}: {e}", path, volume.display());
    let root = File::open(volume).map_err(|e| fail(&e))?;
    match open(root.as_fd(), path) {
        Ok(found) => return Ok(found),
        Err(nix::errno::Errno::ENOENT) => {}
        Err(error) => return Err(fail(&error)),
    }
    let mut at: OwnedFd = root.into();
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(fail(&"must be relative and may not contain '..'"));
        };
        at = match open(at.as_fd(), Path::new(name)) {
            Ok(found) => found,
            Err(nix::errno::Errno::ENOENT) => {
                let mode = nix::sys::stat::fstatat(at.as_fd(), ".", AtFlags::empty())
                    .map_err(|e| fail(&e))?
                    .st_mode;
                let mode = Mode::from_bits_truncate(mode & 0o7777);
                mkdirat(at.as_fd(), name, mode).map_err(|e| fail(&e))?;
                // The umask must not take bits away.
                fchmodat(at.as_fd(), name, mode, FchmodatFlags::FollowSymlink)
                    .map_err(|e| fail(&e))?;
                open(at.as_fd(), Path::new(name)).map_err(|e| fail(&e))?
            }
            Err(error) => return Err(fail(&error)),
        };
    }
    Ok(at)
}

/// Binds `sub` of `volume` at `target`, which is made, and answers with `target`. What an
/// earlier run of the container had there is replaced.
///
/// # Errors
/// A sentence for the event: the path leaves the volume, or the kernel refuses.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, String> {
    let found = resolve(volume, Path::new(sub))?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let fail = |e: std::io::Error| format!("binding subPath {sub:?}: {e}");
    mounts::remove_tree(target).or_else(|_| fs::remove_file(target)).map_err(fail)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    if fs::metadata(&source).map_err(fail)?.is_dir() {
        fs::create_dir(target).map_err(fail)?;
    } else {
        File::create(target).map_err(fail)?;
    }
    mounts::bind(&source, target).map_err(fail)?;
    Ok(target.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        fs::create_dir(volume.join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("real", volume.join("in")).unwrap();
        assert!(resolve(volume, Path::new("real")).is_ok());
        assert!(resolve(volume, Path::new("in")).is_ok());
        assert!(resolve(volume, Path::new("out")).is_err());
        assert!(resolve(volume, Path::new("out/passwd")).is_err());
        assert!(resolve(volume, Path::new("../x")).is_err());
        assert!(resolve(volume, Path::new("new/deep")).is_ok());
        assert!(volume.join("new/deep").is_dir());
    }
}
