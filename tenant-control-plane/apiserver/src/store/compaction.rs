//! Forgets old history every few minutes, one replica at a time.
//!
//! The replicas agree through one key, `compact_rev_key`, whose version counts the rounds and
//! whose value is the revision at that round: who moves it from round N to N+1 compacts to the
//! revision of round N, so that history always reaches back at least one interval.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Outcome, Store};

const KEY: &str = "compact_rev_key";

/// Runs until the token is cancelled.
pub async fn run(store: Arc<Store>, interval: Duration, stop: CancellationToken) {
    let mut seen: Option<(i64, i64)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        match round(&store, seen).await {
            Ok(next) => seen = next,
            Err(error) => tracing::warn!(%error, "compacting the store failed"),
        }
    }
}

/// `seen` is the key's modification revision and the store's revision one round ago.
async fn round(
    store: &Store,
    seen: Option<(i64, i64)>,
) -> Result<Option<(i64, i64)>, machinery::Status> {
    let now = store.current_revision().await?;
    let (expected, until) = seen.unwrap_or((0, 0));
    match store.put(KEY, now.to_string().into_bytes(), expected, 0).await? {
        Outcome::Done(revision) => {
            if until > 0 {
                store.compact(until).await?;
                tracing::info!(revision = until, "compacted the store");
            }
            Ok(Some((revision, now)))
        }
        // Another replica was first: it compacts, and this one starts counting from its round.
        Outcome::Changed(found) => Ok(found.map(|kv| (kv.mod_revision, now))),
    }
}
