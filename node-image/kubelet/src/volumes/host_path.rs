//! hostPath volumes: the types that are checked, and those that are made.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks that `path` is what `kind` says, making it where the type asks for it.
///
/// # Errors
/// A sentence for the FailedMount event.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let meta = fs::metadata(path);
    let is = |fits: fn(&fs::FileType) -> bool, what: &str| match &meta {
        Ok(meta) if fits(&meta.file_type()) => Ok(()),
        _ => Err(format!("hostPath type check failed: {} is not {what}", path.display())),
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if meta.is_err() => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(|e| format!("making the directory {}: {e}", path.display())),
        "FileOrCreate" if meta.is_err() => fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(path)
            .map(drop)
            .map_err(|e| format!("making the file {}: {e}", path.display())),
        "Directory" | "DirectoryOrCreate" => is(fs::FileType::is_dir, "a directory"),
        "File" | "FileOrCreate" => is(fs::FileType::is_file, "a file"),
        "Socket" => is(FileTypeExt::is_socket, "a socket file"),
        "CharDevice" => is(FileTypeExt::is_char_device, "a character device"),
        "BlockDevice" => is(FileTypeExt::is_block_device, "a block device"),
        other => Err(format!("hostPath type {other:?} is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/y");
        assert!(check(&path, "Directory").is_err());
        check(&path, "DirectoryOrCreate").unwrap();
        check(&path, "Directory").unwrap();
        assert!(check(&path, "File").unwrap_err().contains("is not a file"));
        check(&path.join("f"), "FileOrCreate").unwrap();
        assert!(check(Path::new("/nonexistent"), "").is_ok());
        assert!(check(Path::new("/dev/null"), "CharDevice").is_ok());
    }
}
