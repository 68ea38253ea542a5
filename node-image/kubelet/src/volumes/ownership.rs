//! `fsGroup`: gives a volume's files to a group.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Gives everything below `path` to `group`, readable (and, unless `read_only`, writable) for
/// it; directories pass the group on to new files. Symbolic links are not followed.
///
/// # Errors
/// When the file system refuses.
pub fn set_group(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mut mode = meta.mode() & 0o7777 | if read_only { 0o440 } else { 0o660 };
    if meta.is_dir() {
        mode |= 0o2110;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            set_group(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}
