//! The last words of a container: its termination message, or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::runtime::labels;
use crate::runtime::observe::Container;
use crate::server::log_file::{self, Options, Printer};

/// Bytes of a termination message.
const MESSAGE: u64 = 4096;
/// Bytes and lines of the log that stand in for it.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

fn head(path: &Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What cannot be read is no message.
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The end of a log as a reader of it sees it.
fn tail(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let size = file.metadata().map_or(0, |m| m.len());
        // Prefixes are about 40 bytes per line.
        let window = (LOG_BYTES + LOG_LINES * 64) as u64;
        let _ = file.seek(SeekFrom::Start(size.saturating_sub(window)));
        let _ = file.take(window).read_to_end(&mut bytes);
    }
    let read =
        |at: u64, length: usize| Ok(bytes.iter().skip(at as usize).take(length).copied().collect());
    let start = log_file::tail_offset(bytes.len() as u64, LOG_LINES, read).unwrap_or(0);
    let printed = Printer::new(Options::default()).feed(&bytes[start as usize..]);
    let mut out = String::from_utf8_lossy(&printed).into_owned();
    let mut cut = out.len().saturating_sub(LOG_BYTES);
    while !out.is_char_boundary(cut) {
        cut += 1;
    }
    out.split_off(cut)
}

/// What an ended container had to say; empty when nothing.
pub fn of(container: &Container) -> String {
    let path = container.annotations.get(labels::TERMINATION_PATH);
    let mount = path.and_then(|p| container.mounts.iter().find(|m| m.container_path == *p));
    let message = mount.map(|m| head(Path::new(&m.host_path), MESSAGE)).unwrap_or_default();
    let from_log = container
        .annotations
        .get(labels::TERMINATION_POLICY)
        .is_some_and(|p| p == "FallbackToLogsOnError");
    if message.is_empty() && from_log && container.exit_code != 0 {
        return tail(Path::new(&container.log_path));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_without_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: String =
            (0..200).map(|n| format!("2026-01-01T00:00:00.0Z stdout F line {n}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let tail = tail(&path);
        assert!(tail.starts_with("line 120\n") && tail.ends_with("line 199\n"), "{tail}");
        std::fs::write(&path, "2026-01-01T00:00:00.0Z stdout P DONE\n").unwrap();
        assert_eq!(super::tail(&path), "DONE");
        assert_eq!(head(&path, 4), "2026");
        assert_eq!(head(&dir.path().join("none"), 4), "");
    }
}
