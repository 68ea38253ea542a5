//! A worker's console: copied into a log of bounded size, and read for the lines of node-init.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A console log of this size becomes the older one. Two are kept: whoever controls the worker
/// can write as much as it likes to its console, and must not fill the host's disk.
const LIMIT: u64 = 1 << 20;

/// Longer lines are not looked at.
const LONGEST_LINE: usize = 1024;

/// How node-init begins its lines, see `node-image/init`.
const PREFIX: &str = "marina: ";

/// How the line begins that says that all services were started.
const NODE_UP: &str = "node up";

/// Copies a worker's console.
pub struct Console {
    dir: PathBuf,
    log: File,
    written: u64,
    line: Vec<u8>,
}

impl Console {
    /// Begins a new log in the worker's directory.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let log = File::create(dir.join("console.log"))?;
        Ok(Self { dir: dir.to_owned(), log, written: 0, line: Vec::new() })
    }

    /// Copies until the other end is closed; calls `up` when the node says that it is up.
    ///
    /// # Errors
    /// Reading fails. A full disk only loses lines.
    pub fn copy(&mut self, mut source: impl Read, mut up: impl FnMut()) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            let length = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.write(&buffer[..length]);
            if self.scan(&buffer[..length]) {
                up();
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.written > LIMIT {
            let log = self.dir.join("console.log");
            let _ = fs::rename(&log, self.dir.join("console.log.1"));
            if let Ok(file) = File::create(&log) {
                self.log = file;
                self.written = 0;
            }
        }
        if self.log.write_all(bytes).is_ok() {
            self.written += bytes.len() as u64;
        }
    }

    fn scan(&mut self, bytes: &[u8]) -> bool {
        let mut up = false;
        for byte in bytes {
            if *byte == b'\n' {
                up |= step(&self.line).is_some_and(|s| s.starts_with(NODE_UP));
                self.line.clear();
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(*byte);
            }
        }
        up
    }
}

/// What a line of node-init says, without the prefix.
fn step(line: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(line).ok()?.trim();
    // Firmware and kernel may have left something before it on the same line.
    Some(&text[text.find(PREFIX)? + PREFIX.len()..])
}

/// The last thing that node-init said on the worker's console.
pub fn last_step(dir: &Path) -> Option<String> {
    let mut file = File::open(dir.join("console.log")).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(8192))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let said = tail.split(|b| *b == b'\n').rev().find_map(step)?;
    Some(said.chars().filter(|c| !c.is_control()).take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_up_when_it_says_so_even_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut console = Console::create(dir.path()).unwrap();
        let mut ups = 0;
        let text: &[u8] = b"junk\x1b[0mmarina: containerd ready 1.0s\r\nmarina: node ";
        console.copy(text, || ups += 1).unwrap();
        assert_eq!(last_step(dir.path()).as_deref(), Some("node"));
        console.copy(&b"up 2.0s\r\n"[..], || ups += 1).unwrap();
        assert_eq!(ups, 1);
        assert_eq!(last_step(dir.path()).as_deref(), Some("node up 2.0s"));
    }

    #[test]
    fn a_noisy_worker_cannot_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut console = Console::create(dir.path()).unwrap();
        console.copy(io::repeat(b'x').take(5 << 20), || ()).unwrap();
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("console.log") + size("console.log.1") < 3 << 20);
    }
}
