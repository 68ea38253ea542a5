//! Logs of processes: bounded, and a last line for people.
//!
//! Processes append to the file themselves (they outlive the agent), so the agent bounds it by
//! copying the end away and truncating: with O_APPEND the writer goes on at the new end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// A log is cut when it is longer than this, bytes.
pub const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// How much of it is kept in the file `<log>.1`, bytes.
const KEEP_BYTES: u64 = 4 * 1024 * 1024;
/// Longest line that is shown to people, characters.
const MAX_LINE: usize = 300;

/// Cuts a log that has grown too long.
pub fn bound(path: &Path, max_bytes: u64) -> io::Result<()> {
    let length = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= max_bytes {
        return Ok(());
    }
    let kept = tail(path, KEEP_BYTES.min(max_bytes))?;
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    let mut old = File::create(old)?;
    old.write_all(&kept)?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// The last line that says something, for the message of a failed process.
pub fn last_line(path: &Path) -> String {
    let bytes = tail(path, 8 * 1024).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect()
}

fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd-0.log");
        bound(&path, 10).unwrap();
        let mut writer = crate::process::open_log(&path).unwrap();
        writer.write_all(b"0123456789abcdef\n").unwrap();
        bound(&path, 100).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 17);
        bound(&path, 10).unwrap();
        writer.write_all(b"after\n\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after\n\n", "the writer goes on at the new end");
        assert_eq!(fs::read(dir.path().join("etcd-0.log.1")).unwrap(), b"789abcdef\n");
        assert_eq!(last_line(&path), "after");
    }
}
