//! etcd's metric names, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::node::Node;

/// Counters of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    proposals: AtomicU64,
    failed: AtomicU64,
    leader_changes: AtomicU64,
    puts: AtomicU64,
    ranges: AtomicU64,
    deletes: AtomicU64,
    txns: AtomicU64,
    slow_watchers: AtomicU64,
}

/// Requests that are counted.
#[derive(Debug, Clone, Copy)]
pub enum Counted {
    /// Put.
    Put,
    /// Range.
    Range,
    /// DeleteRange.
    Delete,
    /// Txn.
    Txn,
    /// A watcher that could not keep up.
    SlowWatcher,
    /// Another member has become the leader.
    LeaderChange,
}

impl Metrics {
    /// Counts one.
    pub fn count(&self, what: Counted) {
        let counter = match what {
            Counted::Put => &self.puts,
            Counted::Range => &self.ranges,
            Counted::Delete => &self.deletes,
            Counted::Txn => &self.txns,
            Counted::SlowWatcher => &self.slow_watchers,
            Counted::LeaderChange => &self.leader_changes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were proposed.
    pub fn proposed(&self, n: usize) {
        self.proposals.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Requests that could not be proposed.
    pub fn proposals_failed(&self, n: usize) {
        self.failed.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// The text of `/metrics`.
pub fn render(node: &Node) -> String {
    let m = &node.metrics;
    let status = node.consensus.status();
    let (disk, syncs) = node.machine.log.usage();
    let (watchers, streams) = node.machine.hub.counts();
    let (keys, revision, compacted, leases, live) = {
        let state = node.machine.read();
        let s = &state.store;
        let live: u64 = s.live.values().sum();
        (s.index.len(), s.revision, s.compacted, s.leases.len(), live)
    };
    let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
    let flag = |b: bool| u64::from(b);
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, value: u64| {
        let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
    };
    metric("etcd_server_has_leader", "gauge", flag(status.leader.is_some()));
    metric("etcd_server_is_leader", "gauge", flag(status.is_leader));
    metric("etcd_server_is_learner", "gauge", flag(status.is_learner));
    metric("etcd_server_leader_changes_seen_total", "counter", get(&m.leader_changes));
    metric("etcd_server_proposals_committed_total", "gauge", status.committed);
    metric("etcd_server_proposals_applied_total", "gauge", status.applied);
    metric("etcd_server_proposals_failed_total", "counter", get(&m.failed));
    metric("etcd_server_quota_backend_bytes", "gauge", node.config.quota);
    metric("etcd_mvcc_put_total", "counter", get(&m.puts));
    metric("etcd_mvcc_range_total", "counter", get(&m.ranges));
    metric("etcd_mvcc_delete_total", "counter", get(&m.deletes));
    metric("etcd_mvcc_txn_total", "counter", get(&m.txns));
    metric("etcd_mvcc_db_total_size_in_bytes", "gauge", disk);
    metric("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", live);
    metric("etcd_debugging_mvcc_keys_total", "gauge", keys as u64);
    metric("etcd_debugging_mvcc_current_revision", "gauge", u64::try_from(revision).unwrap_or(0));
    metric("etcd_debugging_mvcc_compact_revision", "gauge", u64::try_from(compacted).unwrap_or(0));
    metric("etcd_debugging_mvcc_watcher_total", "gauge", watchers as u64);
    metric("etcd_debugging_mvcc_watch_stream_total", "gauge", streams as u64);
    metric("etcd_debugging_mvcc_slow_watcher_total", "gauge", get(&m.slow_watchers));
    let purged = node.machine.log.view().purged;
    let first = purged.map_or(0, |(_, index)| index + 1);
    metric("etcd_debugging_log_first_index", "gauge", first);
    metric("etcd_debugging_lease_total", "gauge", leases as u64);
    metric("etcd_disk_wal_fsync_total", "counter", syncs);
    let _ = writeln!(
        out,
        "# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{}\"}} 1",
        crate::VERSION
    );
    out
}
