//! What the drivers say about their workers, joined for the report.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use provisioner_api::pb;

use crate::board::Board;

/// Shared by the reconcilers of all drivers.
#[derive(Clone, Debug)]
pub struct WorkerTable {
    board: Board,
    drivers: Arc<Mutex<BTreeMap<String, DriverView>>>,
}

/// What is known through one driver.
#[derive(Clone, Debug, Default)]
pub struct DriverView {
    /// When it last listed its workers.
    pub listed_at: Option<Instant>,
    /// Clusters that have workers there, or a call under way.
    pub in_use: BTreeSet<String>,
    /// For the report, by cluster.
    pub states: BTreeMap<String, Vec<pb::WorkerState>>,
}

impl WorkerTable {
    /// An empty table that reports to the board.
    pub fn new(board: Board) -> Self {
        Self { board, drivers: Arc::default() }
    }

    /// Replaces what is known through one driver.
    pub fn publish(&self, driver: &str, view: DriverView) {
        let mut drivers = self.drivers.lock().expect("no code panics while it holds this lock");
        drivers.insert(driver.to_owned(), view);
        let mut joined: BTreeMap<String, Vec<pb::WorkerState>> = BTreeMap::new();
        for view in drivers.values() {
            for (cluster, states) in &view.states {
                joined.entry(cluster.clone()).or_default().extend(states.iter().cloned());
            }
        }
        drop(drivers);
        self.board.workers(&joined);
    }

    /// `Ok` when no driver that ever made a worker of the cluster has one left; otherwise what is
    /// waited for. Only lists newer than `since` count.
    pub fn none_left(&self, cluster: &str, markers: &Path, since: Instant) -> Result<(), String> {
        let drivers = self.drivers.lock().expect("no code panics while it holds this lock");
        let entries = std::fs::read_dir(markers).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let view = drivers.get(&name);
            let fresh = view.is_some_and(|view| view.listed_at.is_some_and(|at| at > since));
            if !fresh {
                return Err(format!("waiting for the {name} driver to answer"));
            }
            if view.is_some_and(|view| view.in_use.contains(cluster)) {
                return Err(format!("the {name} driver is removing workers"));
            }
        }
        Ok(())
    }
}
