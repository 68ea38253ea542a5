//! A network namespace without a name: the kernel removes it with its last user, so that a killed
//! run leaves none.

use std::fs::File;
use std::task::Poll;

use anyhow::Context;
use lab::control;
use nix::sched::{CloneFlags, setns, unshare};

use crate::machine;

/// The namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network in which a tenant listens on the ports that every tenant listens on.
#[derive(Debug)]
pub struct Namespace {
    itself: File,
    /// Where the thread belongs.
    home: File,
}

impl Namespace {
    /// Makes one, with the address of an API server.
    ///
    /// # Errors
    /// Not permitted, or `ip` fails.
    pub fn new() -> anyhow::Result<Self> {
        let home = File::open(OWN).with_context(|| format!("opening {OWN}"))?;
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        let itself = File::open(OWN);
        go(&home)?;
        let itself = itself.with_context(|| format!("opening {OWN}"))?;
        let namespace = Self { itself, home };
        namespace.inside(|| {
            machine::ip(&["link", "set", "lo", "up"])?;
            // It stands in the certificate and must not be a loopback address.
            machine::ip(&["address", "add", &format!("{}/16", control::ADDRESS), "dev", "lo"])
        })??;
        Ok(namespace)
    }

    /// Does something in the namespace, and comes back. What is started or opened meanwhile stays
    /// there.
    ///
    /// # Errors
    /// The thread cannot go there or, worse, come back.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        go(&self.itself)?;
        let done = work();
        go(&self.home)?;
        Ok(done)
    }

    /// The same for a future: the sockets that it makes are the namespace's. Others run at home.
    ///
    /// # Errors
    /// As [`Self::inside`].
    pub async fn within<F: Future>(&self, work: F) -> anyhow::Result<F::Output> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| match self.inside(|| work.as_mut().poll(context)) {
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }
}

fn go(namespace: &File) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")
}
