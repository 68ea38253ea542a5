//! One look at the doorbell for all who wait.

use std::time::Duration;

use marina_db::Db;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long one wait for the database's doorbell may take before it is started again.
const WAIT: Duration = Duration::from_secs(30);
/// Pause after the database failed.
const RETRY: Duration = Duration::from_secs(1);

/// Tells of every committed change, once per process instead of once per client.
#[derive(Clone)]
pub struct Bell(watch::Receiver<i64>);

impl Bell {
    /// Starts to watch the doorbell until `shutdown`.
    pub fn start(db: Db, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let waited = tokio::select! {
                    waited = db.wait_for_bell(seen, WAIT) => waited,
                    () = shutdown.cancelled() => return,
                };
                match waited {
                    Ok(bell) => {
                        seen = bell;
                        sender.send_if_modified(|last| std::mem::replace(last, bell) != bell);
                    }
                    Err(error) => {
                        tracing::warn!("cannot read the doorbell: {error}");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// A receiver that has seen everything up to now.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        let mut receiver = self.0.clone();
        receiver.mark_unchanged();
        receiver
    }
}
