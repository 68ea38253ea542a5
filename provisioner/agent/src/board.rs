//! What the agent sees, in one place: each part writes its own piece, the report is a copy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use provisioner_api::pb;
use tokio::sync::watch;

/// The observed state of the host; cheap to clone.
#[derive(Clone, Debug)]
pub struct Board {
    inner: Arc<Mutex<pb::HostObserved>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Board {
    /// An empty board.
    pub fn new(host: &str) -> Self {
        let observed = pb::HostObserved { host: host.to_owned(), ..Default::default() };
        Self { inner: Arc::new(Mutex::new(observed)), changed: Arc::new(watch::Sender::new(0)) }
    }

    /// A copy of everything.
    pub fn report(&self) -> pb::HostObserved {
        self.inner.lock().expect("no code panics while it holds this lock").clone()
    }

    /// Rings after every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Changes something about the host itself.
    pub fn host(&self, change: impl FnOnce(&mut pb::HostObserved)) {
        let mut observed = self.inner.lock().expect("no code panics while it holds this lock");
        let before = observed.clone();
        change(&mut observed);
        let changed = *observed != before;
        drop(observed);
        if changed {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Changes something about a cluster, which is listed from then on.
    pub fn cluster(&self, id: &str, change: impl FnOnce(&mut pb::ClusterState)) {
        self.host(|host| {
            let at = match host.clusters.binary_search_by(|c| c.id.as_str().cmp(id)) {
                Ok(at) => at,
                Err(at) => {
                    let new = pb::ClusterState { id: id.to_owned(), ..Default::default() };
                    host.clusters.insert(at, new);
                    at
                }
            };
            change(&mut host.clusters[at]);
        });
    }

    /// Reads something about a cluster; `None` when it is not on this host.
    pub fn read<T>(&self, id: &str, read: impl FnOnce(&pb::ClusterState) -> T) -> Option<T> {
        let observed = self.inner.lock().expect("no code panics while it holds this lock");
        observed.clusters.iter().find(|c| c.id == id).map(read)
    }

    /// Says that nothing of a cluster is left.
    pub fn cluster_gone(&self, id: &str) {
        self.host(|host| host.clusters.retain(|c| c.id != id));
    }

    /// Changes what is known of a member.
    pub fn member(&self, cluster: &str, name: &str, change: impl FnOnce(&mut pb::MemberState)) {
        self.cluster(cluster, |state| {
            let at = match state.members.iter().position(|m| m.name == name) {
                Some(at) => at,
                None => {
                    let new = pb::MemberState { name: name.to_owned(), ..Default::default() };
                    state.members.push(new);
                    state.members.len() - 1
                }
            };
            change(&mut state.members[at]);
        });
    }

    /// Says that nothing of a member is left.
    pub fn member_gone(&self, cluster: &str, name: &str) {
        self.cluster(cluster, |state| state.members.retain(|m| m.name != name));
    }

    /// Replaces what one driver says about its workers, over all clusters. `clusters` are those
    /// that are on this host: workers of others have nowhere to be listed.
    pub fn workers(&self, by_cluster: &BTreeMap<String, Vec<pb::WorkerState>>) {
        let ids: Vec<String> = self.report().clusters.into_iter().map(|c| c.id).collect();
        for id in ids {
            let workers = by_cluster.get(&id).cloned().unwrap_or_default();
            self.cluster(&id, |state| state.workers = workers);
        }
    }
}
