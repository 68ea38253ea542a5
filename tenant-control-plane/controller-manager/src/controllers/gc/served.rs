//! Which kinds are served, and the work that waits for that to change.

use std::collections::HashSet;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::graph::Work;
use crate::discovery::Resource;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Served {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    resources: Vec<Resource>,
    /// Counts the changes of `resources`.
    generation: u64,
    /// Work that needs a kind which nobody serves.
    parked: HashSet<Work>,
}

impl Served {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no code panics while it holds this lock")
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no code panics while it holds this lock")
    }

    /// The resource that serves a kind, in whichever version of the group.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.read().resources.iter().find(|r| r.kind == kind && r.group() == group).cloned()
    }

    /// Everything that is served.
    pub(super) fn resources(&self) -> Vec<Resource> {
        self.read().resources.clone()
    }

    /// Changes whenever [`Served::find`] may answer otherwise than before.
    pub(super) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Takes in what is served now; returns the work that waited for a change.
    pub(super) fn replace(&self, resources: Vec<Resource>) -> Vec<Work> {
        let mut state = self.write();
        if state.resources == resources {
            return Vec::new();
        }
        state.resources = resources;
        state.generation += 1;
        state.parked.drain().collect()
    }

    /// Keeps work until something else is served than in that generation. False when that is so
    /// already, and the work is not kept.
    pub(super) fn park(&self, work: Work, generation: u64) -> bool {
        let mut state = self.write();
        let waits = state.generation == generation;
        if waits {
            state.parked.insert(work);
        }
        waits
    }
}
