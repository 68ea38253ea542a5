//! The annotations through which a Deployment and its ReplicaSets keep revisions and sizes. `kubectl
//! rollout history` and `undo` read them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;

/// Revision of a ReplicaSet; on the Deployment, the newest.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions that a ReplicaSet had before, when rolled back to.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when the ReplicaSet was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same plus the surge.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Never copied between a Deployment and its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Longest history text.
const HISTORY_LIMIT: usize = 2000;

/// Annotations of a ReplicaSet.
pub type Annotations = BTreeMap<String, String>;

/// A ReplicaSet's revision, 0 when it has none.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// A number in an annotation.
pub fn number(set: &ReplicaSet, name: &str) -> Option<i32> {
    set.annotations().get(name)?.parse().ok()
}

/// The annotations with the sizes of the Deployment noted.
pub fn with_sizes(set: &ReplicaSet, desired: i32, max: i32) -> Annotations {
    let mut annotations = set.annotations().clone();
    annotations.insert(DESIRED.to_owned(), desired.to_string());
    annotations.insert(MAX.to_owned(), max.to_string());
    annotations
}

/// The annotations that the newest ReplicaSet should carry: the Deployment's own and the revision.
pub fn for_newest(deployment: &Deployment, set: &ReplicaSet, revision_now: i64) -> Annotations {
    let mut annotations = set.annotations().clone();
    for (name, value) in deployment.annotations() {
        if !NOT_COPIED.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
    let before = revision(set);
    if before < revision_now {
        annotations.insert(REVISION.to_owned(), revision_now.to_string());
        if before > 0 {
            let history = annotations.get(HISTORY).map(String::as_str).unwrap_or_default();
            let mut entries: Vec<_> = history.split(',').filter(|e| !e.is_empty()).collect();
            let before = before.to_string();
            entries.push(&before);
            while entries.join(",").len() > HISTORY_LIMIT {
                entries.remove(0);
            }
            let history = entries.join(",");
            annotations.insert(HISTORY.to_owned(), history);
        }
    }
    annotations
}
