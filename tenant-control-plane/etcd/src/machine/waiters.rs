//! Who proposed what: from a proposal's id to the caller that waits for its outcome.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_api::error::EtcdError;
use etcd_api::pb::etcdserverpb::{AlarmMember, DeleteRangeResponse, PutResponse, TxnResponse};
use tokio::sync::oneshot;

/// What came of a proposal. Headers carry the revision only.
#[derive(Debug)]
pub enum Outcome {
    /// Of a put.
    Put(PutResponse),
    /// Of a delete.
    DeleteRange(DeleteRangeResponse),
    /// Of a transaction.
    Txn(TxnResponse),
    /// Of what answers nothing but the revision.
    Done(i64),
    /// Of a login: at which log index, and at which revision of the auth store.
    LoggedIn {
        /// Part of the token.
        index: u64,
        /// Whether the password that was checked is still the one.
        auth_revision: u64,
    },
    /// Of an alarm request: the alarms that it was about.
    Alarms(Vec<AlarmMember>),
}

/// An outcome or etcd's error.
pub type Answer = Result<Outcome, EtcdError>;

/// The callers of this member.
pub struct Waiters {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

/// Somebody who waits. When it is dropped nobody does, and what has not been proposed by then is
/// not proposed any more.
pub struct Waiting<'a> {
    waiters: &'a Waiters,
    /// Of the proposal.
    pub id: u64,
    outcome: oneshot::Receiver<Answer>,
}

impl Waiting<'_> {
    /// Waits for the outcome; `None` when there will be none.
    pub async fn outcome(mut self) -> Option<Answer> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.id);
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            // Ids of another run or another member must not be mistaken for ours.
            next: AtomicU64::new(rand::random()),
            waiting: Mutex::default(),
        }
    }
}

impl Waiters {
    /// A new id, under which an outcome will be delivered for as long as the result lives.
    pub fn register(&self) -> Waiting<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, outcome) = oneshot::channel();
        self.lock().insert(id, tx);
        Waiting { waiters: self, id, outcome }
    }

    /// Whether somebody here waits for it.
    pub fn is_waiting(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    /// Delivers an outcome, if somebody here waits for it.
    pub fn finish(&self, id: u64, answer: Answer) {
        let waiter = self.lock().remove(&id);
        if let Some(tx) = waiter {
            // The caller may have given up.
            let _ = tx.send(answer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().expect("no panic while held")
    }
}
