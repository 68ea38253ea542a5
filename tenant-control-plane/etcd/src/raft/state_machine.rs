//! The state machine as openraft sees it.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use super::codec::{log_id, log_id_from_pb, membership_json};
use super::types::{LogId, RaftSnapshot, RaftSnapshotMeta, StoredMembership, TypeConfig};
use crate::machine::Machine;
use crate::machine::load::Received;
use crate::machine::view::View;
use crate::storage::log::{EntryType, LogEntry};
use crate::threads;

/// A snapshot: ours, to be sent, or another member's, to be installed.
pub enum SnapshotData {
    /// A view of our state.
    Ours(Box<View>),
    /// What a leader sent.
    Theirs(Box<Received>),
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SnapshotData::Ours(_) => "Ours",
            SnapshotData::Theirs(_) => "Theirs",
        })
    }
}

/// Adapter of [`Machine`].
pub struct StateMachine {
    machine: Arc<Machine>,
}

impl StateMachine {
    /// Adapter of this machine.
    pub fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }

    fn snapshot(&self, view: View) -> io::Result<RaftSnapshot> {
        Ok(RaftSnapshot {
            meta: RaftSnapshotMeta {
                last_log_id: view.head.applied.map(log_id_from_pb),
                last_membership: membership(&view.head.membership)?,
            },
            snapshot: SnapshotData::Ours(Box::new(view)),
        })
    }
}

fn membership(json: &[u8]) -> io::Result<StoredMembership> {
    if json.is_empty() {
        return Ok(StoredMembership::default());
    }
    serde_json::from_slice(json).map_err(io::Error::other)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.machine.read();
        let applied = state.applied.map(|(term, index)| log_id(term, index));
        Ok((applied, membership(&state.membership)?))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let mut applied = LogEntry {
                index: id.index,
                term: id.leader_id.term,
                entry_type: EntryType::Blank,
                data: bytes::Bytes::new(),
                at: Default::default(),
            };
            let mut stored = None;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    applied.entry_type = EntryType::Batch;
                    applied.data = command.data;
                    applied.at = command.at;
                }
                EntryPayload::Membership(m) => {
                    applied.entry_type = EntryType::Membership;
                    applied.data = membership_json(&m);
                    let m = StoredMembership::new(Some(id), m);
                    stored = Some(serde_json::to_vec(&m)?.into());
                }
            }
            self.machine.apply(&applied, stored);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        Self::new(Arc::clone(&self.machine))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &RaftSnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let SnapshotData::Theirs(received) = snapshot else {
            // Our own state is already in place.
            return Ok(());
        };
        let machine = Arc::clone(&self.machine);
        threads::block(move || machine.install(*received)).await?
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        if self.machine.read().applied.is_none() {
            return Ok(None);
        }
        self.snapshot(View::open(&self.machine)).map(Some)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    /// Writes a checkpoint, after which raft purges the log up to it.
    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let machine = Arc::clone(&self.machine);
        let view = threads::block(move || {
            let view = machine.checkpoint()?;
            let freed = machine.free_segments(&view)?;
            if freed > 0 {
                tracing::info!(freed.bytes = freed, "deleted log segments");
            }
            Ok::<_, io::Error>(view)
        })
        .await??;
        self.snapshot(view)
    }
}
