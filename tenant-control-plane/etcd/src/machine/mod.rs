//! The replicated state machine: log entries in, state and events out.
//!
//! [`Machine`] is shared by the raft worker (the only one that writes), the gRPC handlers (which
//! read under a short lock) and the housekeeper (compaction sweeps and checkpoints).

pub mod apply;
pub mod digests;
pub mod housekeeping;
pub mod load;
pub mod read;
pub mod state;
pub mod view;
pub mod waiters;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use etcd_api::pb::etcdserverpb::AlarmType;
use tokio::sync::{Notify, watch};

use digests::Digests;
pub use state::State;

use crate::access::token::Tokens;
use crate::storage::log::Log;
use crate::watch::hub::Hub;
use waiters::Waiters;

/// The state machine of one member.
pub struct Machine {
    state: RwLock<State>,
    /// The log, where values live.
    pub log: Arc<Log>,
    /// Watchers.
    pub hub: Hub,
    /// Callers that wait for their proposal to be applied.
    pub waiters: Waiters,
    /// Whom tokens stand for.
    pub tokens: Tokens,
    /// Whether requests need a user: what the state says, without its lock.
    guarded: AtomicBool,
    /// Whether there is any alarm: the same.
    alarmed: AtomicBool,
    /// Entries before this one had been committed when this process started.
    replayed: u64,
    /// Held while a checkpoint is written: there is one file.
    checkpointing: Mutex<()>,
    /// How often the state was replaced by another member's snapshot.
    installed: AtomicU64,
    /// The digests after the last entries.
    pub digests: Digests,
    /// Views that are open: while there are any, nothing is swept and no segment is deleted.
    pins: AtomicUsize,
    /// Rung when there may be something to sweep.
    pub sweep_bell: Notify,
    applied: watch::Sender<u64>,
    /// Index that the durable checkpoint covers, plus one.
    checkpointed: AtomicU64,
}

impl Machine {
    /// Reads the state. Keep it short: the raft worker waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("a panic while applying aborts")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("a panic while applying aborts")
    }

    /// Whether authentication is on.
    pub fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::Acquire)
    }

    /// Whether this alarm is raised for a member.
    pub fn has_alarm(&self, member: u64, kind: AlarmType) -> bool {
        self.alarmed.load(Ordering::Acquire) && self.read().alarms.contains(&(member, kind.into()))
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.read().store.revision
    }

    /// Waits until the entry at `index` has been applied.
    pub async fn wait_applied(&self, index: u64) {
        let mut rx = self.applied.subscribe();
        // An error means that the machine is gone, and with it everybody who could wait.
        let _ = rx.wait_for(|next| *next > index).await;
    }

    /// Index of the last applied entry, plus one.
    pub fn applied_next(&self) -> u64 {
        *self.applied.borrow()
    }
}
