//! The mount table: what is mounted where, tmpfs, binds and their undoing.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        match octal.and_then(|o| u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse(table: &str) -> Vec<PathBuf> {
    table.lines().filter_map(|l| l.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p))).collect()
}

/// Mount points at or below `path`, deepest first.
///
/// # Errors
/// When the mount table cannot be read.
pub fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<_> = parse(&table).into_iter().filter(|p| p.starts_with(path)).collect();
    // Later mounts cover earlier ones, so undo them from the end.
    found.reverse();
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    Ok(found)
}

/// Whether something is mounted exactly at `path`.
///
/// # Errors
/// When the mount table cannot be read.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(parse(&table).iter().any(|p| p == path))
}

/// Mounts a tmpfs of at most `bytes` (the kernel's default when `None`) at `path`, unless one
/// is there.
///
/// # Errors
/// When the kernel refuses.
pub fn tmpfs(path: &Path, bytes: Option<u64>) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let options = bytes.map(|b| format!("size={b}"));
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        options.as_deref(),
    )?;
    Ok(())
}

/// Binds `source` onto `target`, with everything below it.
///
/// # Errors
/// When the kernel refuses.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Removes a directory tree after taking everything off that is mounted in it. Never removes
/// anything through a mount: if one stays, the tree stays.
///
/// # Errors
/// When a mount cannot be undone or a file not removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    for point in below(path)? {
        umount2(&point, MntFlags::UMOUNT_NOFOLLOW)
            .or_else(|_| umount2(&point, MntFlags::MNT_DETACH))?;
    }
    if !below(path)?.is_empty() {
        return Err(io::Error::other(format!(
            "something is still mounted below {}",
            path.display()
        )));
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "36 35 98:0 / /mnt\\0402/x rw - ext3 a b\n37 35 98:0 / /mnt rw - ext3 a b\n";
        assert_eq!(parse(table), [PathBuf::from("/mnt 2/x"), PathBuf::from("/mnt")]);
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
    }
}
