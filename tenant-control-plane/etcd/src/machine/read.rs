//! Reading keys without holding up the writer.

use std::io;
use std::sync::Arc;

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use tonic::Status;

use super::Machine;
use crate::mvcc::history::Version;
use crate::mvcc::index::{Key, KeyRange};
use crate::mvcc::range::Selection;

/// Keys that are visited under one lock: some ten microseconds.
const KEYS_PER_LOCK: usize = 256;
/// How often a range begins again because of what goes on meanwhile.
const ATTEMPTS: usize = 10;

/// One past event of a watch.
#[derive(Debug, Clone)]
pub struct Past {
    /// The key.
    pub key: Key,
    /// What was put, or a tombstone.
    pub version: Version,
    /// What was there before.
    pub before: Option<Version>,
}

/// This member's data is damaged: the client should ask another.
pub fn damaged(e: &io::Error) -> Status {
    tracing::error!(error = %e, "a stored value cannot be read");
    Status::data_loss(format!("etcdserver: a stored value cannot be read: {e}"))
}

impl Machine {
    /// Answers a range request from what is applied here.
    pub async fn range(&self, r: &RangeRequest) -> Result<RangeResponse, Status> {
        let keys = KeyRange::new(&r.key, &r.range_end);
        let mut attempts = 0;
        loop {
            match self.try_range(r, &keys).await? {
                Ok(response) => return Ok(response),
                // The segment went away between finding the version and reading its value: it was
                // moved, or a compaction overtook us.
                Err(e) if e.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                Err(e) => return Err(damaged(&e)),
            }
        }
    }

    async fn try_range(
        &self,
        r: &RangeRequest,
        keys: &KeyRange,
    ) -> Result<io::Result<RangeResponse>, Status> {
        let now = {
            let state = self.read();
            state.store.check_revision(r.revision)?;
            state.store.revision
        };
        let at = if r.revision > 0 { r.revision } else { now };
        let mut selection = Selection::default();
        loop {
            let more = {
                let state = self.read();
                if state.store.compacted > at {
                    return match r.revision {
                        // Nobody asked for the past: it was the present when we began.
                        0 => Ok(Err(io::ErrorKind::NotFound.into())),
                        _ => Err(EtcdError::Compacted.into()),
                    };
                }
                selection.feed(&state.store.index, r, keys, at, KEYS_PER_LOCK)
            };
            if !more {
                break;
            }
            tokio::task::consume_budget().await;
        }
        Ok(selection.respond(r, self.log.files().as_ref()).map(|mut response| {
            response.header = Some(ResponseHeader { revision: now, ..Default::default() });
            response
        }))
    }

    /// Every event on `keys` in revisions `from..=to`, in order. The error is the compacted
    /// revision, if `from` lies below it.
    pub async fn history(&self, keys: &KeyRange, from: i64, to: i64) -> Result<Vec<Past>, i64> {
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            {
                let state = self.read();
                if from < state.store.compacted {
                    return Err(state.store.compacted);
                }
                let mut visited = 0;
                let start = after.take();
                for (key, history) in state.store.index.range(keys, start.as_deref()) {
                    collect(&mut found, key, history.versions(), from, to);
                    visited += 1;
                    if visited == KEYS_PER_LOCK {
                        after = Some(Arc::clone(key));
                        break;
                    }
                }
            }
            if after.is_none() {
                break;
            }
            tokio::task::consume_budget().await;
        }
        found.sort_unstable_by_key(|p: &Past| (p.version.main, p.version.sub));
        Ok(found)
    }
}

fn collect(found: &mut Vec<Past>, key: &Key, versions: &[Version], from: i64, to: i64) {
    let first = versions.partition_point(|v| v.main < from);
    for (i, version) in versions.iter().enumerate().skip(first) {
        if version.main > to {
            break;
        }
        let before = i.checked_sub(1).map(|i| versions[i]);
        found.push(Past {
            key: Arc::clone(key),
            version: *version,
            before: before.filter(|v| !v.is_tombstone()),
        });
    }
}
