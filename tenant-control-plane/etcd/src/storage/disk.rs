//! The disk, as far as a member needs one. There is the [`Host`]'s, and the simulation's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Directories and files. What is written or renamed is durable only after the sync that covers it.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// What is in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an empty file, new or not.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, over another if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and deletions in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Ends the process, whose disk cannot be trusted any more.
    fn stop(&self, why: &str) -> !;

    /// The size of the first segments of a log; they grow with it, so that there are never too many.
    fn segment_bytes(&self) -> u64 {
        16 << 20
    }

    /// All of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// An open file.
#[allow(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait DiskFile: Send + Sync {
    /// Reads exactly so many bytes.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Extends it by zeros that have their place, so that writing there changes no metadata.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Makes its content durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes its content and length durable.
    fn sync_all(&self) -> io::Result<()>;
    /// How long the next sync takes, where time is simulated.
    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }
}

/// The disk of this host.
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Disk for Host {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn stop(&self, why: &str) -> ! {
        tracing::error!("{why}; stopping");
        eprintln!("etcd: {why}");
        std::process::abort()
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    /// A file system that cannot do it serves a sparse file.
    fn reserve(&self, len: u64) -> io::Result<()> {
        use nix::errno::Errno;
        use nix::fcntl::{FallocateFlags, fallocate};
        let signed = i64::try_from(len).map_err(io::Error::other)?;
        match fallocate(self, FallocateFlags::empty(), 0, signed) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => File::set_len(self, len),
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}

/// Reads or writes a file from its beginning to its end.
pub struct Sequential {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Sequential {
    /// From the beginning.
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, offset: 0 }
    }
}

impl io::Read for Sequential {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len()?.saturating_sub(self.offset);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_at(&mut buf[..n], self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl io::Write for Sequential {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_at(buf, self.offset)?;
        self.offset += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
