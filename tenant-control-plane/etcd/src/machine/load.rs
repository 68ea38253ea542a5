//! Making the state: from the checkpoint at start, or from another member's snapshot.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, RwLock};

use anyhow::Context as _;
use tokio::sync::{Notify, watch};

use super::view::View;
use super::{Machine, State};
use crate::mvcc::history::{History, Version};
use crate::pb;
use crate::storage::checkpoint;
use crate::storage::disk::Disk;
use crate::storage::files::ValueRef;
use crate::storage::log::{Hold, Log};
use crate::watch::hub::Hub;

/// How many keys go into one record, and are visited under one lock.
pub const KEYS_PER_BLOCK: usize = 512;

impl Machine {
    /// Opens what is in `dir` (made if absent): the checkpoint, then the log behind it. The
    /// entries behind the checkpoint are applied by raft, which knows what is committed.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> anyhow::Result<Arc<Self>> {
        disk.create_dir(dir).with_context(|| dir.display().to_string())?;
        let mut head = pb::StateHead::default();
        let mut loaded: Option<State> = None;
        let state = &mut loaded;
        let keep = &mut head;
        let mut items = Vec::new();
        let found = checkpoint::read(
            disk.as_ref(),
            dir,
            |h| {
                *state = Some(State::from_head(&h));
                *keep = h;
            },
            |item| items.push(item),
        )
        .with_context(|| format!("checkpoint in {}", dir.display()))?;
        let mut state = loaded.unwrap_or_default();
        for item in items {
            load_key(&mut state, item)?;
        }
        state.store.finish_load();
        let log = Log::open(disk, dir, head.log_segment)?;
        let next = state.applied.map_or(0, |(_, index)| index + 1);
        let first = log.view().purged.map_or(0, |(_, index)| index + 1);
        anyhow::ensure!(
            first <= next,
            "the log in {} begins at entry {first}, but the checkpoint ends before {next}",
            dir.display()
        );
        let hub = Hub::new(state.store.revision);
        let replayed = log.committed().map_or(0, |(_, index)| index + 1);
        Ok(Arc::new(Self {
            log: Arc::new(log),
            hub,
            waiters: Default::default(),
            tokens: Default::default(),
            guarded: AtomicBool::new(state.access.enabled),
            alarmed: AtomicBool::new(!state.alarms.is_empty()),
            digests: Default::default(),
            replayed,
            checkpointing: Default::default(),
            installed: AtomicU64::new(0),
            pins: AtomicUsize::new(0),
            sweep_bell: Notify::new(),
            applied: watch::Sender::new(next),
            checkpointed: AtomicU64::new(if found { next } else { 0 }),
            state: RwLock::new(state),
        }))
    }

    /// Begins to receive another member's snapshot.
    pub fn receive(&self, head: &pb::StateHead) -> Receiving {
        Receiving {
            hold: self.log.hold(),
            log: Arc::clone(&self.log),
            state: State::from_head(head),
            keys: 0,
        }
    }

    /// Replaces the state by a received one, durably.
    pub fn install(self: &Arc<Self>, received: Received) -> io::Result<()> {
        self.log.sync();
        // A checkpoint that is half written would have keys of both states.
        let alone = self.checkpointing.lock().expect("no panic while held");
        let (revision, next) = {
            let mut state = self.write();
            *state = received.state;
            self.installed.fetch_add(1, Ordering::AcqRel);
            self.guarded.store(state.access.enabled, Ordering::Release);
            self.alarmed.store(!state.alarms.is_empty(), Ordering::Release);
            self.digests.forget();
            self.tokens.forget_all();
            (state.store.revision, state.applied.map_or(0, |(_, index)| index + 1))
        };
        drop(received.hold);
        self.write_checkpoint(&alone)?;
        self.hub.jump(revision);
        self.applied.send_replace(next);
        Ok(())
    }

    /// Writes a checkpoint of the current state. Returns the view that was written.
    pub fn checkpoint(self: &Arc<Self>) -> io::Result<View> {
        self.write_checkpoint(&self.checkpointing.lock().expect("no panic while held"))
    }

    fn write_checkpoint(self: &Arc<Self>, _alone: &MutexGuard<'_, ()>) -> io::Result<View> {
        let mut view = View::open(self);
        // What the checkpoint refers to must be durable before it.
        self.log.sync();
        let files = self.log.files();
        let mut writer = checkpoint::Writer::create(files.disk(), files.dir(), &view.head)?;
        loop {
            let keys = view.next(KEYS_PER_BLOCK)?;
            if keys.is_empty() {
                break;
            }
            writer.keys(View::with_references(keys))?;
        }
        let bytes = writer.finish()?;
        let next = view.head.applied.map_or(0, |id| id.index + 1);
        self.checkpointed.store(next, Ordering::Release);
        tracing::info!(
            checkpoint.bytes = bytes,
            checkpoint.next_index = next,
            revision = view.head.revision,
            "wrote a checkpoint"
        );
        Ok(view)
    }
}

fn load_key(state: &mut State, item: pb::KeyHistory) -> io::Result<()> {
    let versions: Vec<Version> = item
        .versions
        .iter()
        .map(|v| Version {
            main: v.main,
            create: v.create,
            version: v.version,
            lease: v.lease,
            value: ValueRef { segment: v.segment, offset: v.offset, len: v.length, crc: v.crc },
            sub: v.sub,
        })
        .collect();
    load_versions(state, &item.key, versions)
}

fn load_versions(state: &mut State, key: &[u8], versions: Vec<Version>) -> io::Result<()> {
    let in_order = versions.is_sorted_by(|a, b| (a.main, a.sub) < (b.main, b.sub));
    let too_new = versions.last().is_some_and(|last| last.main > state.store.revision);
    if !in_order || too_new {
        let key = String::from_utf8_lossy(key);
        let what = format!("the versions of {key:?} are not those of one history");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let history = match versions[..] {
        [] => return Ok(()),
        [one] => History::One(one),
        _ => History::Many(versions),
    };
    state.store.load(key.into(), history);
    Ok(())
}

/// A snapshot that is being received. Its values go into our log as they come.
pub struct Receiving {
    /// Before the state refers to the values nothing else does.
    hold: Hold,
    log: Arc<Log>,
    state: State,
    keys: u64,
}

impl Receiving {
    /// Adds keys with their values.
    pub fn add(&mut self, items: Vec<pb::KeyHistory>) -> io::Result<()> {
        for mut item in items {
            self.keys += 1;
            let values: Vec<_> = item.versions.iter().map(|v| v.value.clone()).collect();
            for (version, at) in item.versions.iter_mut().zip(self.log.put_values(&values)) {
                version.segment = at.segment;
                version.offset = at.offset;
                version.length = at.len;
                version.crc = at.crc;
            }
            load_key(&mut self.state, item)?;
        }
        Ok(())
    }

    /// Adds a key whose values are in our log already.
    pub fn load(&mut self, key: &[u8], versions: Vec<Version>) -> io::Result<()> {
        load_versions(&mut self.state, key, versions)
    }

    /// There are no more keys.
    pub fn done(mut self) -> Received {
        self.state.store.finish_load();
        Received { state: self.state, hold: self.hold }
    }

    /// The end of the stream, which says how many keys there were.
    pub fn finish(self, keys: u64) -> io::Result<Received> {
        if keys != self.keys {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("snapshot has {} of {keys} keys", self.keys),
            ));
        }
        Ok(self.done())
    }
}

/// A complete snapshot, ready to be installed.
pub struct Received {
    /// The state it brings.
    pub state: State,
    hold: Hold,
}
