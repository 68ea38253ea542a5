//! What each pod of this node was given (KEP-1287), in memory and on disk.
//!
//! `<root>/pods/<uid>/allocated.json` is written before anything is done with it and goes with
//! the pod's directory, so a kubelet that is started again gives nothing twice and nothing more.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::sync::watch;

use crate::spec::resize::{self, Allocation};
use crate::volumes::pod_dir;

const FILE: &str = "allocated.json";

/// Allocations by the uid of their pod.
pub type Known = HashMap<String, Allocation>;

/// See the module documentation.
pub struct Allocations {
    root: PathBuf,
    known: Mutex<Known>,
    freed: watch::Sender<()>,
}

/// What came of a look at what a pod asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<R> {
    /// It has that already.
    Already,
    /// It asked for the first time, and has it now.
    First,
    /// It had something else, and has what it asks for now.
    Changed,
    /// It keeps what it has.
    Refused(R),
}

impl Allocations {
    /// Those of an earlier kubelet with the same root directory.
    pub fn load(root: &Path) -> Self {
        let mut known = Known::new();
        for entry in fs::read_dir(root.join("pods")).into_iter().flatten().flatten() {
            let path = entry.path().join(FILE);
            match fs::read(&path) {
                Ok(text) => match serde_json::from_slice(&text) {
                    Ok(allocation) => {
                        let uid = entry.file_name().to_string_lossy().into_owned();
                        known.insert(uid, allocation);
                    }
                    Err(error) => tracing::warn!("{} is damaged: {error}", path.display()),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("reading {}: {error}", path.display()),
            }
        }
        Self { root: root.to_owned(), known: Mutex::new(known), freed: watch::Sender::new(()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    /// What a pod was given.
    pub fn get(&self, uid: &str) -> Option<Allocation> {
        self.lock().get(uid).cloned()
    }

    /// Gives a pod what it asks for, if it is the first time or `judge` lets it. Nobody else is
    /// given anything while `judge` looks.
    ///
    /// # Errors
    /// When it cannot be written down; nothing has changed then.
    pub fn settle<R>(
        &self,
        uid: &str,
        asked: Allocation,
        judge: impl FnOnce(&Known) -> Result<(), R>,
    ) -> io::Result<Settled<R>> {
        let before = {
            let mut known = self.lock();
            if let Some(given) = known.get(uid) {
                if resize::is_settled(&asked, given) {
                    return Ok(Settled::Already);
                }
                if let Err(refusal) = judge(&known) {
                    return Ok(Settled::Refused(refusal));
                }
            }
            known.insert(uid.to_owned(), asked.clone())
        };
        let durably = before.is_some();
        if let Err(error) = write(&pod_dir(&self.root, uid), &asked, durably) {
            let mut known = self.lock();
            match before {
                Some(before) => known.insert(uid.to_owned(), before),
                None => known.remove(uid),
            };
            return Err(error);
        }
        if before.is_none() {
            return Ok(Settled::First);
        }
        // It may be less than before.
        self.ring();
        Ok(Settled::Changed)
    }

    /// Forgets a pod that is gone. Its file has gone with its directory.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
        self.ring();
    }

    /// Tells those who wait for room that there may be some.
    pub fn ring(&self) {
        self.freed.send_replace(());
    }

    /// Changes when there may be more room than before.
    pub fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }
}

/// Replaces the file at once, and `durably`: not before the new one is on the disk. A pod's first
/// allocation need not outlive the machine: its containers do not either, and it is what the pod
/// would be given again.
fn write(dir: &Path, allocation: &Allocation, durably: bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let partial = dir.join("allocated.json.partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(&serde_json::to_vec(allocation)?)?;
    if !durably {
        return fs::rename(&partial, dir.join(FILE));
    }
    file.sync_all()?;
    fs::rename(&partial, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(cpu: &str) -> Allocation {
        serde_json::from_value(serde_json::json!({"c": {"requests": {"cpu": cpu}}})).unwrap()
    }

    #[test]
    fn what_was_given_outlives_the_kubelet() {
        let dir = tempfile::tempdir().unwrap();
        let first = Allocations::load(dir.path());
        let never = |_: &Known| -> Result<(), &str> { panic!("nothing to judge") };
        assert_eq!(first.settle("u", allocation("1"), never).unwrap(), Settled::First);
        assert_eq!(first.settle("u", allocation("1000m"), never).unwrap(), Settled::Already);
        let refused = first.settle("u", allocation("2"), |_| Err("no")).unwrap();
        assert_eq!(refused, Settled::Refused("no"));
        let mut freed = first.freed();
        assert_eq!(
            first.settle("u", allocation("3"), |_| Ok::<_, &str>(())).unwrap(),
            Settled::Changed
        );
        assert!(freed.has_changed().unwrap());
        freed.mark_unchanged();

        let second = Allocations::load(dir.path());
        assert_eq!(second.get("u"), Some(allocation("3")));
        crate::volumes::tear_down(dir.path(), "u").unwrap();
        second.forget("u");
        assert_eq!(Allocations::load(dir.path()).get("u"), None);
    }

    #[test]
    fn what_cannot_be_written_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pods"), "a file where a directory should be").unwrap();
        let all = Allocations::load(dir.path());
        assert!(all.settle("u", allocation("1"), |_| Ok::<_, ()>(())).is_err());
        assert_eq!(all.get("u"), None);
    }
}
