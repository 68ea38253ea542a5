//! The last desired state, on disk.

use std::{io, path::PathBuf, sync::Arc};

use prost::Message;
use provisioner_api::pb;
use tokio::sync::{Mutex, watch};

/// Keeps the desired state: durable before it is acknowledged, and watched by everyone.
#[derive(Debug)]
pub struct DesiredStore {
    file: PathBuf,
    current: watch::Sender<Arc<pb::HostDesired>>,
    writing: Mutex<()>,
}

/// Why a desired state is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is for another host.
    #[error("this is host {ours:?}, the desired state is for {theirs:?}")]
    OtherHost {
        /// This host.
        ours: String,
        /// Whom it is for.
        theirs: String,
    },
    /// It is older than the one in force.
    #[error("revision {theirs} is older than {ours}, which is in force")]
    Older {
        /// In force.
        ours: u64,
        /// Refused.
        theirs: u64,
    },
    /// It cannot be written.
    #[error("the desired state cannot be stored")]
    Store(#[from] io::Error),
}

impl DesiredStore {
    /// Reads what was stored; without that, nothing is desired at revision 0, and `false`.
    pub fn open(file: PathBuf, host: &str) -> anyhow::Result<(Self, bool)> {
        let stored = crate::durable::read(&file)?;
        let known = stored.is_some();
        let desired = match stored {
            Some(bytes) => pb::HostDesired::decode(bytes.as_slice())?,
            None => pb::HostDesired { host: host.to_owned(), ..Default::default() },
        };
        let current = watch::Sender::new(Arc::new(desired));
        Ok((Self { file, current, writing: Mutex::default() }, known))
    }

    /// Everyone who acts on it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<pb::HostDesired>> {
        self.current.subscribe()
    }

    /// Stores and publishes a new desired state.
    pub async fn apply(&self, desired: pb::HostDesired) -> Result<u64, Refused> {
        let _writing = self.writing.lock().await;
        let now = Arc::clone(&*self.current.borrow());
        if desired.host != now.host {
            return Err(Refused::OtherHost { ours: now.host.clone(), theirs: desired.host });
        }
        if desired.revision < now.revision {
            return Err(Refused::Older { ours: now.revision, theirs: desired.revision });
        }
        let revision = desired.revision;
        if desired != *now {
            let (file, bytes) = (self.file.clone(), desired.encode_to_vec());
            let write = move || crate::durable::write(&file, &bytes, 0o600);
            tokio::task::spawn_blocking(write).await.map_err(io::Error::other)??;
            self.current.send_replace(Arc::new(desired));
        }
        Ok(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_state_survives_and_older_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("desired");
        let desired = |revision| pb::HostDesired {
            host: "h1".into(),
            revision,
            clusters: vec![pb::Cluster { id: "3fa9c01d".into(), ..Default::default() }],
        };
        let (store, known) = DesiredStore::open(file.clone(), "h1").unwrap();
        assert!(!known);
        assert_eq!(store.apply(desired(7)).await.unwrap(), 7);
        assert_eq!(store.apply(desired(7)).await.unwrap(), 7);
        assert!(matches!(store.apply(desired(6)).await, Err(Refused::Older { .. })));
        let other = pb::HostDesired { host: "h2".into(), ..desired(8) };
        assert!(matches!(store.apply(other).await, Err(Refused::OtherHost { .. })));

        let (store, known) = DesiredStore::open(file, "h1").unwrap();
        assert!(known);
        assert_eq!(**store.subscribe().borrow(), desired(7));
    }
}
