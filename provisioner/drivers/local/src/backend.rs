//! What one kind of local worker has to provide.

use std::process::Child;

use driver_api::ProbeResponse;

use crate::record::Worker;

/// A worker's first process.
pub struct Started {
    /// Its handle. Standard output must be a pipe: it is the worker's console.
    pub child: Child,
}

/// One way of running workers on this host. All methods block.
pub trait Backend: Send + Sync + 'static {
    /// Whether this host can run such workers; if not, what to install or to change.
    fn probe(&self) -> ProbeResponse;

    /// Makes the files that the worker needs, in its directory. Called in the driver.
    ///
    /// # Errors
    /// In words for people: they become the worker's message.
    fn prepare(&self, worker: &Worker) -> anyhow::Result<()>;

    /// Starts the worker. Called in its keeper.
    ///
    /// # Errors
    /// As [`Backend::prepare`].
    fn start(&self, worker: &Worker) -> anyhow::Result<Started>;

    /// More to say about a worker that runs, if there is something unusual.
    fn remark(&self, _worker: &Worker) -> Option<String> {
        None
    }

    /// Removes everything outside the worker's directory. The worker's process has ended, or never
    /// existed. May be called again, and for a worker that was only half made.
    ///
    /// # Errors
    /// Something is left; the call will be repeated.
    fn clean_up(&self, worker: &Worker) -> anyhow::Result<()>;

    /// Handles a hidden sub-command of the driver's executable, for a step that needs a process of
    /// its own. `None`: there is no such command.
    fn helper(&self, _name: &str, _worker: &Worker) -> Option<anyhow::Result<()>> {
        None
    }
}
