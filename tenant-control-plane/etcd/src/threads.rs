//! Work that would hold others up goes to other threads, but not on a runtime that has only one:
//! there (in the simulation) everything happens in one order, which a seed decides.

use std::future::Future;
use std::io;

use tokio::runtime::{Handle, RuntimeFlavor};

fn is_alone() -> bool {
    let handle = Handle::try_current();
    handle.is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Runs a task for as long as it takes, on a thread of its own.
pub fn start(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    if is_alone() {
        tokio::spawn(task);
        return Ok(());
    }
    let thread = std::thread::Builder::new().name(name.into()).stack_size(256 << 10);
    thread.spawn(move || futures::executor::block_on(task))?;
    Ok(())
}

/// Runs what blocks.
pub async fn block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if is_alone() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
