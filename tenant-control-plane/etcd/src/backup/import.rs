//! Beginning from what `etcdutl snapshot restore` has left in a data directory.
//!
//! It leaves `member/snap/db`, a bbolt file, and in `member/wal` a log with nothing but the members
//! of the new cluster in it. Every member of that cluster begins from the same file, so all have the
//! same state before the first entry that they agree on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use etcd_api::pb::authpb::{Role, User};
use etcd_api::pb::mvccpb::KeyValue;
use prost::Message;

use super::{StoredLease, bucket, parse_revision};
use crate::bolt::read::Reader;
use crate::config::Config;
use crate::machine::Machine;
use crate::mvcc::history::Version;
use crate::pb;
use crate::raft;
use crate::storage::disk::{Disk, Host};

/// Values that are written to our log at once.
const VALUES: usize = 512;

/// Takes over a restored snapshot, if there is one that has not been taken over yet.
pub fn restored(config: &Config, dir: &Path, machine: &Arc<Machine>) -> anyhow::Result<()> {
    let path = dir.join("snap").join("db");
    if machine.read().applied.is_none() && path.exists() {
        take_over(config, &path, machine).with_context(|| path.display().to_string())?;
        tracing::info!(revision = machine.revision(), "began from a restored snapshot");
    }
    if machine.read().applied.is_some() {
        for leftover in ["snap", "wal"] {
            remove(&dir.join(leftover))?;
        }
        Host.sync_dir(dir)?;
    }
    Ok(())
}

fn remove(dir: &PathBuf) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

fn take_over(config: &Config, path: &Path, machine: &Arc<Machine>) -> anyhow::Result<()> {
    ensure!(
        !config.existing,
        "a restored snapshot begins a new cluster: --initial-cluster-state must be new"
    );
    let file = Reader::open(path)?;
    let members = config.initial_members();
    let meta = meta(&file)?;
    // What the tool writes: one entry per member, in the first term.
    ensure!(
        meta.consistent_index == members.len() as u64 && meta.term == 1,
        "this is the data directory of a running etcd of another make, whose log cannot be read: \
         save a snapshot of it (etcdctl snapshot save) and restore that (etcdutl snapshot restore)"
    );
    let mut histories = Histories::default();
    file.each(bucket::KEY, |key, value| histories.add(machine, key, value))?;
    histories.flush(machine);
    let urls = members.into_iter().map(|(id, (_, urls))| (id, urls));
    let head = pb::StateHead {
        applied: Some(pb::LogId::default()),
        membership: raft::first_membership(urls.collect()),
        // An empty store is at revision 1.
        revision: histories.revision.max(1),
        compacted: meta.compacted,
        leases: leases(&file)?,
        auth: Some(access(&file)?),
        ..Default::default()
    };
    let mut receiving = machine.receive(&head);
    for (key, versions) in histories.keys {
        receiving.load(&key, versions)?;
    }
    machine.install(receiving.done())?;
    // The state stands for the first entry of the log: who joins later gets it as a snapshot.
    machine.log.purge((0, 0));
    machine.log.set_committed(Some((0, 0)));
    machine.log.sync();
    Ok(())
}

#[derive(Default)]
struct Meta {
    consistent_index: u64,
    term: u64,
    compacted: i64,
}

fn meta(file: &Reader) -> anyhow::Result<Meta> {
    let mut meta = Meta::default();
    file.each(bucket::META, |key, value| {
        let number = || value.try_into().map(u64::from_be_bytes);
        match key {
            b"consistent_index" => meta.consistent_index = number().context("consistent_index")?,
            b"term" => meta.term = number().context("term")?,
            b"scheduledCompactRev" | b"finishedCompactRev" => {
                let (main, ..) = parse_revision(value).context("the compacted revision")?;
                meta.compacted = meta.compacted.max(main);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(meta)
}

/// Versions by key. Their values go into our log as they come.
#[derive(Default)]
struct Histories {
    keys: BTreeMap<Bytes, Vec<Version>>,
    revision: i64,
    pending: Vec<(Bytes, Version, Bytes)>,
}

impl Histories {
    fn add(&mut self, machine: &Machine, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let (main, sub, is_tombstone) = parse_revision(key).context("a key is no revision")?;
        self.revision = self.revision.max(main);
        let kv = KeyValue::decode(value).with_context(|| format!("revision {main}"))?;
        if kv.key.is_empty() {
            // Only there to raise the revision (--bump-revision).
            return Ok(());
        }
        ensure!(is_tombstone || kv.version > 0, "revision {main} has a version below 1");
        let version = Version {
            main,
            sub: u32::try_from(sub).context("a revision with too many changes")?,
            create: kv.create_revision,
            version: if is_tombstone { 0 } else { kv.version },
            lease: kv.lease,
            value: Default::default(),
        };
        self.pending.push((kv.key, version, kv.value));
        if self.pending.len() == VALUES {
            self.flush(machine);
        }
        Ok(())
    }

    fn flush(&mut self, machine: &Machine) {
        let values: Vec<Bytes> = self.pending.iter().map(|(.., value)| value.clone()).collect();
        let places = machine.log.put_values(&values);
        for ((key, mut version, _), place) in self.pending.drain(..).zip(places) {
            version.value = place;
            self.keys.entry(key).or_default().push(version);
        }
    }
}

fn leases(file: &Reader) -> anyhow::Result<Vec<pb::LeaseGrant>> {
    let mut leases = Vec::new();
    file.each(bucket::LEASE, |_, value| {
        let StoredLease { id, ttl, remaining } = StoredLease::decode(value)?;
        leases.push(pb::LeaseGrant { id, ttl, remaining, ..Default::default() });
        Ok(())
    })?;
    Ok(leases)
}

fn access(file: &Reader) -> anyhow::Result<pb::AuthState> {
    let mut auth = pb::AuthState { revision: 1, ..Default::default() };
    file.each(bucket::AUTH, |key, value| {
        match key {
            b"authEnabled" => auth.enabled = value == [1],
            b"authRevision" => {
                auth.revision = u64::from_be_bytes(value.try_into().context("authRevision")?);
            }
            _ => {}
        }
        Ok(())
    })?;
    file.each(bucket::USERS, |_, value| {
        auth.users.push(User::decode(value)?);
        Ok(())
    })?;
    file.each(bucket::ROLES, |_, value| {
        auth.roles.push(Role::decode(value)?);
        Ok(())
    })?;
    Ok(auth)
}
