//! A disk that forgets what was not synced.
//!
//! A write is there at once for whoever reads it, but until the file is synced a power failure keeps
//! any part of it, in any order, sector by sector. Creations, renames and deletions keep their order
//! within a directory; a failure keeps the first few of those that were not synced. After a set number
//! of operations the disk fails by itself: that is a failure between two steps of one function.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd::storage::disk::{Disk, DiskFile};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::net::{HostId, Net};

/// What a power failure keeps all of or nothing of.
const SECTOR: usize = 512;

/// One member's disk. It outlives its processes.
#[derive(Clone)]
pub struct SimDisk {
    host: HostId,
    net: Net,
    state: Arc<Mutex<State>>,
}

struct State {
    random: StdRng,
    next_file: u64,
    /// As the process sees it.
    names: BTreeMap<PathBuf, u64>,
    /// As it is after a power failure, but for `pending`.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that no sync has covered, in order.
    pending: Vec<Rename>,
    files: HashMap<u64, File>,
    sync_delay: (Duration, Duration),
    /// Fails for good after so many operations.
    fuse: Option<u64>,
    broken: bool,
    /// The next sync reports an error.
    fail_sync: bool,
    stopped: Option<String>,
}

enum Rename {
    Put(PathBuf, u64),
    Remove(PathBuf),
}

impl Rename {
    fn path(&self) -> &Path {
        match self {
            Rename::Put(path, _) | Rename::Remove(path) => path,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Rename::Put(path, file) => {
                // What has this name now had another before.
                names.retain(|_, other| *other != file);
                names.insert(path, file);
            }
            Rename::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}

#[derive(Default, Clone)]
struct Content {
    /// What was written; zeros follow up to `len`.
    bytes: Vec<u8>,
    len: u64,
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn set_len(&mut self, len: u64) {
        self.bytes.truncate(usize::try_from(len).expect("memory"));
        self.len = len;
    }
}

enum Change {
    Write(usize, Vec<u8>),
    Len(u64),
}

#[derive(Default)]
struct File {
    now: Content,
    durable: Content,
    /// What `now` has and `durable` has not, in order.
    unsynced: Vec<Change>,
}

impl File {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    /// What a power failure leaves.
    fn lose(&mut self, random: &mut StdRng) {
        self.forget(random);
        self.now = self.durable.clone();
    }

    /// What was written is not unsynced any more, whether it has reached the disk or not.
    fn forget(&mut self, random: &mut StdRng) {
        let keep_all = random.random_bool(0.2);
        let share = random.random_range(0.0..1.0);
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(offset, bytes) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let end = ((offset + at) / SECTOR + 1) * SECTOR - offset;
                        let end = end.min(bytes.len());
                        if keep_all || random.random_bool(share) {
                            self.durable.write(&bytes[at..end], offset + at);
                        }
                        at = end;
                    }
                }
                change @ Change::Len(_) => {
                    if keep_all || random.random_bool(share) {
                        apply(&mut self.durable, &change);
                    }
                }
            }
        }
    }
}

fn apply(content: &mut Content, change: &Change) {
    match change {
        Change::Write(offset, bytes) => content.write(bytes, *offset),
        Change::Len(len) => content.set_len(*len),
    }
}

impl State {
    fn rename(&mut self, change: Rename) {
        match &change {
            Rename::Put(path, file) => {
                self.names.retain(|_, other| other != file);
                self.names.insert(path.clone(), *file);
            }
            Rename::Remove(path) => {
                self.names.remove(path);
            }
        }
        self.pending.push(change);
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, host: HostId, net: Net) -> Self {
        Self {
            host,
            net,
            state: Arc::new(Mutex::new(State {
                random: StdRng::seed_from_u64(seed),
                next_file: 1,
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending: Vec::new(),
                files: HashMap::new(),
                sync_delay: (Duration::from_micros(200), Duration::from_millis(3)),
                fuse: None,
                broken: false,
                fail_sync: false,
                stopped: None,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// Counts an operation that changes something; false when it does nothing any more.
    fn works(&self, state: &mut State) -> bool {
        if state.broken {
            return false;
        }
        if let Some(left) = &mut state.fuse {
            *left -= 1;
            if *left == 0 {
                self.break_down(state);
            }
        }
        !state.broken
    }

    /// From now on nothing that this host does matters: nobody may hear of it.
    fn break_down(&self, state: &mut State) {
        state.broken = true;
        state.fuse = None;
        self.net.silence(self.host);
    }

    /// The process is gone; what it has written is still there.
    pub fn after_kill(&self) {
        let mut state = self.lock();
        state.broken = false;
        state.fuse = None;
        state.fail_sync = false;
        state.stopped = None;
    }

    /// The power was gone.
    pub fn after_power_failure(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let keep = state.random.random_range(0..=state.pending.len());
        let pending = std::mem::take(&mut state.pending);
        for change in pending.into_iter().take(keep) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let mut files: Vec<_> = state.names.values().copied().collect();
        files.sort_unstable();
        state.files.retain(|id, _| files.binary_search(id).is_ok());
        for id in files {
            let file = state.files.get_mut(&id).expect("a name leads to a file");
            file.lose(&mut state.random);
        }
        drop(guard);
        self.after_kill();
    }

    /// Fails for good in the middle of something.
    pub fn set_fuse(&self, operations: u64) {
        self.lock().fuse = Some(operations.max(1));
    }

    /// How long a sync takes.
    pub fn set_sync_delay(&self, from: Duration, to: Duration) {
        self.lock().sync_delay = (from, to);
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        self.lock().fail_sync = true;
    }

    /// Whether it is still to fail.
    pub fn fails_next_sync(&self) -> bool {
        self.lock().fail_sync
    }

    /// Nothing that was going to fail will.
    pub fn clear_faults(&self) {
        let mut state = self.lock();
        state.fuse = None;
        state.fail_sync = false;
    }

    /// Whether nothing reaches the disk any more.
    pub fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Why the process gave up, if it did.
    pub fn why_stopped(&self) -> Option<String> {
        self.lock().stopped.clone()
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl Disk for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.lock();
        Ok(state.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = *self.lock().names.get(path).ok_or_else(|| not_found(path))?;
        Ok(Arc::new(Handle { disk: self.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let works = self.works(&mut state);
        let id = match state.names.get(path).copied() {
            Some(id) => {
                if works {
                    state.files.entry(id).or_default().change(Change::Len(0));
                }
                id
            }
            None => {
                let id = state.next_file;
                state.next_file += 1;
                state.files.insert(id, File::default());
                if works {
                    state.rename(Rename::Put(path.to_owned(), id));
                }
                id
            }
        };
        drop(state);
        Ok(Arc::new(Handle { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if self.works(&mut state) {
            let id = *state.names.get(from).ok_or_else(|| not_found(from))?;
            state.rename(Rename::Put(to.to_owned(), id));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if self.works(&mut state) {
            state.names.get(path).ok_or_else(|| not_found(path))?;
            state.rename(Rename::Remove(path.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if self.works(state) {
            if std::mem::take(&mut state.fail_sync) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let pending = std::mem::take(&mut state.pending);
            for change in pending {
                if change.path().parent() == Some(dir) {
                    change.apply(&mut state.durable_names);
                } else {
                    state.pending.push(change);
                }
            }
        }
        Ok(())
    }

    /// Small, so that there are many.
    fn segment_bytes(&self) -> u64 {
        64 << 10
    }

    fn stop(&self, why: &str) -> ! {
        let mut state = self.lock();
        // What a process without a disk believes to have seen says nothing about it.
        if !state.broken {
            state.stopped = Some(why.to_owned());
        }
        self.break_down(&mut state);
        drop(state);
        std::panic::panic_any(Stopped)
    }
}

/// With what a simulated process ends itself.
pub struct Stopped;

struct Handle {
    disk: SimDisk,
    id: u64,
}

impl Handle {
    fn with<T>(&self, ask: impl FnOnce(&mut State, &mut File) -> T) -> io::Result<T> {
        let mut guard = self.disk.lock();
        let mut file = guard.files.remove(&self.id).ok_or(io::ErrorKind::NotFound)?;
        let answer = ask(&mut guard, &mut file);
        guard.files.insert(self.id, file);
        Ok(answer)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(|state, file| {
            if self.disk.works(state) {
                file.change(change);
            }
        })
    }
}

impl DiskFile for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|_, file| {
            if offset + bytes.len() as u64 > file.now.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let from = usize::try_from(offset).expect("memory").min(file.now.bytes.len());
            let n = bytes.len().min(file.now.bytes.len() - from);
            bytes[..n].copy_from_slice(&file.now.bytes[from..from + n]);
            bytes[n..].fill(0);
            Ok(())
        })?
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(usize::try_from(offset).expect("memory"), bytes.to_owned()))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|_, file| file.now.len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let longer = self.with(|_, file| file.now.len.max(len))?;
        self.change(Change::Len(longer))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, file| {
            if !self.disk.works(state) {
                return Ok(());
            }
            if std::mem::take(&mut state.fail_sync) {
                // As Linux does: it is there for whoever reads it, and nobody will write it.
                file.forget(&mut state.random);
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            file.sync();
            Ok(())
        })?
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_delay(&self) -> Duration {
        let mut state = self.disk.lock();
        if state.broken {
            // Nobody is told that it succeeded.
            return Duration::from_secs(1_000_000);
        }
        let (from, to) = state.sync_delay;
        state.random.random_range(from..=to)
    }
}
