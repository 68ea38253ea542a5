//! Bytes from a disk or a peer that are not what they should be: refused, or without consequence,
//! and never a panic. `MARINA_FUZZ_ROUNDS` makes it longer.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Fed;
use crate::machine::view::View;
use crate::mvcc::Values;
use crate::pb;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::log::EntryType;

/// A disk in memory, without any delay or fault of its own.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<PathBuf, File>>);

type File = Arc<Mutex<Vec<u8>>>;

/// With what a server gives up.
struct GaveUp;

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for Memory {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Handle(self.0.lock().unwrap().get(path).cloned().ok_or_else(not_found)?)))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::default();
        self.0.lock().unwrap().insert(path.to_owned(), Arc::clone(&file));
        Ok(Arc::new(Handle(file)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or_else(not_found)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(path).map(drop).ok_or_else(not_found)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn stop(&self, _: &str) -> ! {
        resume_unwind(Box::new(GaveUp))
    }
    fn segment_bytes(&self) -> u64 {
        4 << 10
    }
}

impl Memory {
    fn copy(&self) -> Self {
        let files = self.0.lock().unwrap();
        let copy = |(path, file): (&PathBuf, &File)| {
            (path.clone(), Arc::new(Mutex::new(file.lock().unwrap().clone())))
        };
        Self(Mutex::new(files.iter().map(copy).collect()))
    }
}

struct Handle(File);

impl DiskFile for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.0.lock().unwrap();
        let from = file.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut file, end) = (self.0.lock().unwrap(), offset as usize + bytes.len());
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let longer = file.len().max(len as usize);
        file.resize(longer, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How many times to try.
pub(crate) fn rounds() -> u64 {
    std::env::var("MARINA_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// Changes some bytes in one of the ways in which disks and networks do it.
pub(crate) fn mangle(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let length = bytes.len();
    let at = if length == 0 { 0 } else { random.random_range(0..length) };
    let end = (at + random.random_range(1..600)).min(length);
    match random.random_range(0..6) {
        0..2 if length > 0 => bytes[at] ^= 1 << random.random_range(0..8),
        2 => bytes[at..end].fill(0),
        3 => bytes.truncate(at),
        4 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.random()),
        _ => {
            // Something from elsewhere.
            let from = if length == 0 { 0 } else { random.random_range(0..length) };
            let piece = bytes[from..(from + end - at).min(length)].to_vec();
            bytes[at..at + piece.len()].copy_from_slice(&piece);
        }
    }
}

/// Runs something that may give up, and may not panic.
fn unless_it_gives_up<T>(what: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(done) => Some(done),
        Err(panic) if panic.is::<GaveUp>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

fn dir() -> &'static Path {
    Path::new("/data")
}

/// With many small segments, a checkpoint in the middle, and a compaction.
fn filled(disk: &Arc<Memory>) -> Fed {
    let mut fed = Fed::try_open(Arc::clone(disk) as Arc<dyn Disk>, dir()).unwrap();
    for i in 0..200 {
        fed.put(&format!("key {}", i % 23), format!("value {}", i + 2).repeat(9).as_bytes());
        if i == 120 {
            fed.compact(60);
            drop(fed.checkpoint());
            fed.machine.log.purge((1, 100));
        }
    }
    fed
}

/// Each value tells which revision it is of. Returns how many could be read.
fn look_through(fed: &Fed) -> usize {
    let state = fed.machine.read();
    assert!(state.store.revision <= 201, "{}", state.store.revision);
    let versions =
        state.store.index.iter().flat_map(|(key, history)| {
            history.versions().iter().map(move |version| (key, version))
        });
    let mut read = 0;
    for (key, version) in versions {
        let Ok(value) = fed.machine.log.files().load(version.value) else { continue };
        let is = format!("value {}", version.main).repeat(9);
        assert_eq!(value, is.as_bytes(), "{key:?}");
        read += 1;
    }
    read
}

#[test]
fn what_a_disk_gives_back_is_refused_or_right() {
    let sound = Arc::new(Memory::default());
    let fed = filled(&sound);
    assert!(look_through(&fed) > 100);
    drop(fed);
    let (mut refused, mut served) = (0, 0);
    for seed in 0..rounds() {
        let random = &mut StdRng::seed_from_u64(seed);
        let disk = Arc::new(sound.copy());
        let files: Vec<File> = disk.0.lock().unwrap().values().cloned().collect();
        for _ in 0..random.random_range(1..4) {
            mangle(&mut files[random.random_range(0..files.len())].lock().unwrap(), random);
        }
        let opened = unless_it_gives_up(|| {
            let fed = Fed::try_open(disk, dir()).ok()?;
            Some(look_through(&fed))
        });
        match opened.flatten() {
            None => refused += 1,
            Some(_) => served += 1,
        }
    }
    assert!(refused > rounds() / 4 && served > rounds() / 50, "{refused} refused, {served} served");
}

#[test]
fn a_mangled_snapshot_or_entry_of_a_peer_does_no_harm_to_the_process() {
    let leader = filled(&Arc::default());
    let mut view = View::open(&leader.machine);
    let keys = view.next(usize::MAX).unwrap();
    let items = pb::SnapshotItems { keys: view.with_values(keys).unwrap() }.encode_to_vec();
    let head = view.head.encode_to_vec();
    let entry = leader.machine.log.read(150, 151, usize::MAX).unwrap().remove(0).data;
    let mut installed = 0;
    for seed in 0..rounds() {
        let random = &mut StdRng::seed_from_u64(seed);
        let (mut items, mut head, mut entry) = (items.clone(), head.clone(), entry.to_vec());
        mangle([&mut items, &mut head][random.random_range(0..2)], random);
        mangle(&mut entry, random);
        unless_it_gives_up(|| {
            let mut fed = Fed::try_open(Arc::new(Memory::default()), dir()).unwrap();
            let (Ok(head), Ok(items)) = (
                pb::StateHead::decode(head.as_slice()),
                pb::SnapshotItems::decode(items.as_slice()),
            ) else {
                return;
            };
            let keys = items.keys.len() as u64;
            let mut receiving = fed.machine.receive(&head);
            if receiving.add(items.keys).is_err() {
                return;
            }
            fed.machine.install(receiving.finish(keys).unwrap()).unwrap();
            installed += 1;
            fed.apply_raw(EntryType::Batch, entry.clone().into());
            fed.machine.sweep_some();
        });
    }
    assert!(installed > rounds() / 20, "{installed}");
}
