//! The rows, indexed: built-in ones for ever, custom ones as their definitions come and go.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::row::Row;

/// All rows that are served now. Reading is a pointer copy.
pub struct Table {
    current: RwLock<Arc<Snapshot>>,
}

/// The rows at one moment.
#[derive(Default)]
pub struct Snapshot {
    rows: Vec<Arc<Row>>,
    by_name: HashMap<(String, String, String), Arc<Row>>,
}

impl Snapshot {
    fn of(rows: Vec<Arc<Row>>) -> Self {
        let key = |r: &Row| (r.group.to_string(), r.version.to_string(), r.plural.to_string());
        let by_name = rows.iter().map(|row| (key(row), row.clone())).collect();
        Self { rows, by_name }
    }

    /// The row of a resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        self.by_name.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The row that has a kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Row>> {
        self.rows.iter().find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    /// Every row, in discovery order of their groups.
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    /// Group names in discovery order, the core group (`""`) first.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !groups.contains(&row.group.as_ref()) {
                groups.push(&row.group);
            }
        }
        groups
    }

    /// Versions of a group, preferred first.
    pub fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|r| r.group == group) {
            if !versions.contains(&row.version.as_ref()) {
                versions.push(&row.version);
            }
        }
        versions
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// The built-in rows.
    pub fn new() -> Self {
        let rows = super::built_in().into_iter().map(Arc::new).collect();
        Self { current: RwLock::new(Arc::new(Snapshot::of(rows))) }
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().expect("no panic while the table is locked").clone()
    }

    /// Replaces the custom rows. Their groups come by name, whenever they were made: a short name
    /// that two of them have means the first.
    pub fn set_custom(&self, mut custom: Vec<Row>) {
        // Stable: the versions of a group stay in their order.
        custom.sort_by(|a, b| a.group.cmp(&b.group));
        let mut current = self.current.write().expect("no panic while the table is locked");
        let mut rows: Vec<_> = current.rows.iter().filter(|r| !r.custom).cloned().collect();
        rows.extend(custom.into_iter().map(Arc::new));
        *current = Arc::new(Snapshot::of(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_complete() {
        let table = Table::new();
        let snapshot = table.snapshot();
        assert_eq!(snapshot.rows().len(), snapshot.by_name.len(), "a resource has two rows");
        for row in snapshot.rows() {
            assert!(row.prefix.is_some() != row.review.is_some(), "{}", row.plural);
        }
        let pods = snapshot.find("", "v1", "pods").unwrap();
        assert_eq!(pods.key("ns", "a"), "/registry/pods/ns/a");
        assert_eq!(snapshot.find("", "v1", "nodes").unwrap().key("", "a"), "/registry/minions/a");
        assert_eq!(snapshot.versions("autoscaling"), ["v2", "v1"]);
    }
}
