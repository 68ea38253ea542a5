//! The segment files of one member, open for reading.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use super::disk::{Disk, DiskFile};

/// Where a value is, and the checksum that it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ValueRef {
    /// Segment id; 0 is no segment and belongs to an empty value.
    pub segment: u32,
    /// First byte of the value in the segment's file.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// CRC-32 of the value.
    pub crc: u32,
}

/// Open segment files. Reading never blocks writing.
pub struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: RwLock<HashMap<u32, Arc<dyn DiskFile>>>,
    /// Whether a value was not what had been written.
    rotten: AtomicBool,
}

impl Files {
    /// Opens the directory; it must exist.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned(), open: RwLock::default(), rotten: AtomicBool::new(false) }
    }

    /// Where they are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The directory that holds the segments.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file name of a segment.
    pub fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:010}.seg"))
    }

    /// Ids of all segments on disk, ascending.
    pub fn list(&self) -> io::Result<Vec<u32>> {
        let mut ids = Vec::new();
        for path in self.disk.list(&self.dir)? {
            if path.extension().and_then(|e| e.to_str()) == Some("seg") {
                let stem = path.file_stem().and_then(|s| s.to_str());
                ids.extend(stem.and_then(|s| s.parse::<u32>().ok()));
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Removes what a crash left half made. Only for a start: later it may be in the making.
    pub fn remove_temporary(&self) -> io::Result<()> {
        for path in self.disk.list(&self.dir)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// The open file of a segment.
    pub fn get(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(f) = self.open.read().expect("never poisoned").get(&segment) {
            return Ok(Arc::clone(f));
        }
        let file = self.disk.open(&self.path(segment))?;
        let mut open = self.open.write().expect("never poisoned");
        Ok(Arc::clone(open.entry(segment).or_insert(file)))
    }

    /// Creates a segment with `capacity` bytes reserved and `head` as its first bytes, durably:
    /// a segment that can be seen has its head.
    pub fn create(
        &self,
        segment: u32,
        capacity: u64,
        head: &[u8],
    ) -> io::Result<Arc<dyn DiskFile>> {
        let tmp = self.path(segment).with_extension("tmp");
        let file = self.disk.create(&tmp)?;
        file.reserve(capacity)?;
        file.write_at(head, 0)?;
        file.sync_all()?;
        self.disk.rename(&tmp, &self.path(segment))?;
        self.disk.sync_dir(&self.dir)?;
        self.open.write().expect("never poisoned").insert(segment, Arc::clone(&file));
        Ok(file)
    }

    /// Deletes a segment.
    pub fn remove(&self, segment: u32) -> io::Result<()> {
        self.open.write().expect("never poisoned").remove(&segment);
        self.disk.remove(&self.path(segment))
    }

    /// Whether a value has failed its check since the start.
    pub fn is_rotten(&self) -> bool {
        self.rotten.load(Ordering::Acquire)
    }

    /// Reads a value and checks it.
    pub fn read(&self, at: ValueRef) -> io::Result<Bytes> {
        if at.len == 0 {
            return Ok(Bytes::new());
        }
        let mut buf = vec![0; at.len as usize];
        self.get(at.segment)?.read_at(&mut buf, u64::from(at.offset))?;
        if crc32fast::hash(&buf) != at.crc {
            self.rotten.store(true, Ordering::Release);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("value in segment {} at {} fails its checksum", at.segment, at.offset),
            ));
        }
        Ok(buf.into())
    }
}

/// After a failed sync the kernel may have dropped the dirty pages, so that a later successful
/// sync would prove nothing. The only safe reaction is to stop and recover from what the disk has.
pub fn stop(disk: &dyn Disk, error: &io::Error) -> ! {
    disk.stop(&format!("the log could not be written or synced: {error}"))
}
