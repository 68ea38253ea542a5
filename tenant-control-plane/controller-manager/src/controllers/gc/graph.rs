//! Who owns whom, over all kinds. Pure: changes in, work out.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of an object whose dependents must be gone first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents must be let go first.
pub const ORPHAN: &str = "orphan";

/// What identifies an object besides its uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `v1` or `group/version`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An object in the graph.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// What it is.
    pub identity: Identity,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Uids of the objects that name it as owner.
    pub dependents: HashSet<String>,
    /// True while it waits for its dependents to be deleted.
    pub waits_for_dependents: bool,
    /// True when it is being deleted.
    pub deleting: bool,
    /// True while it is only known from a dependent's reference, or nobody watches its kind.
    pub is_rumour: bool,
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// The object (by uid) may have to be deleted, or may not exist.
    Examine(String),
    /// The object's dependents must be let go.
    Orphan(String),
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Work::Examine(uid) => write!(f, "examine {uid}"),
            Work::Orphan(uid) => write!(f, "orphan dependents of {uid}"),
        }
    }
}

/// Owners that were found not to exist, so that each is asked about once.
const ABSENT_LIMIT: usize = 1000;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Graph {
    vertices: HashMap<String, Vertex>,
    absent: HashSet<String>,
    absent_order: VecDeque<String>,
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|has| has == finalizer)
}

impl Graph {
    /// An object of the graph.
    pub fn get(&self, uid: &str) -> Option<&Vertex> {
        self.vertices.get(uid)
    }

    /// True when the uid is known not to exist any more.
    pub fn is_absent(&self, uid: &str) -> bool {
        self.absent.contains(uid)
    }

    /// Takes in an object that is there.
    pub fn observe(&mut self, identity: Identity, meta: &ObjectMeta) -> Vec<Work> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        if self.absent.remove(&uid) {
            self.absent_order.retain(|absent| *absent != uid);
        }
        let owners = meta.owner_references.clone().unwrap_or_default();
        let deleting = meta.deletion_timestamp.is_some();
        let foreground = deleting && has_finalizer(meta, FOREGROUND);
        let mut work = Vec::new();
        let known = self.vertices.get(&uid);
        let (was_deleting, was_waiting, old_owners, was_rumour) = match known {
            Some(v) => (v.deleting, v.waits_for_dependents, v.owners.clone(), v.is_rumour),
            None => (false, false, Vec::new(), true),
        };
        let dependents = known.map(|v| v.dependents.clone()).unwrap_or_default();
        let vertex = Vertex {
            identity: identity.clone(),
            owners: owners.clone(),
            dependents: dependents.clone(),
            waits_for_dependents: foreground,
            deleting,
            is_rumour: false,
        };
        self.vertices.insert(uid.clone(), vertex);
        self.relink(&uid, &identity.namespace, &old_owners, &owners, &mut work);
        let is_new = |owner: &OwnerReference| {
            was_rumour || old_owners.iter().all(|old| old.uid != owner.uid)
        };
        if owners.iter().any(|owner| is_new(owner) && self.is_absent(&owner.uid)) {
            work.push(Work::Examine(uid.clone()));
        }
        if deleting && has_finalizer(meta, ORPHAN) {
            work.push(Work::Orphan(uid.clone()));
        }
        if foreground && !was_waiting {
            work.extend(dependents.into_iter().map(Work::Examine));
            work.push(Work::Examine(uid.clone()));
        }
        if deleting != was_deleting {
            work.extend(self.waiting_owners(&owners));
        }
        work
    }

    /// Owners that wait for their dependents may have one fewer to wait for.
    fn waiting_owners(&self, owners: &[OwnerReference]) -> Vec<Work> {
        let waiting = owners.iter().filter(|owner| {
            self.vertices.get(&owner.uid).is_some_and(|vertex| vertex.waits_for_dependents)
        });
        waiting.map(|owner| Work::Examine(owner.uid.clone())).collect()
    }

    fn relink(
        &mut self,
        uid: &str,
        namespace: &str,
        old: &[OwnerReference],
        new: &[OwnerReference],
        work: &mut Vec<Work>,
    ) {
        for owner in old.iter().filter(|owner| !new.iter().any(|n| n.uid == owner.uid)) {
            if let Some(vertex) = self.vertices.get_mut(&owner.uid) {
                vertex.dependents.remove(uid);
            }
        }
        let changed: Vec<_> = old.iter().filter(|owner| !new.contains(owner)).cloned().collect();
        work.extend(self.waiting_owners(&changed));
        for owner in new {
            if self.absent.contains(&owner.uid) {
                continue;
            }
            match self.vertices.get_mut(&owner.uid) {
                Some(vertex) => {
                    vertex.dependents.insert(uid.to_owned());
                    // It came too late to be deleted with the others.
                    if vertex.waits_for_dependents && !old.contains(owner) {
                        work.push(Work::Examine(uid.to_owned()));
                    }
                }
                None => {
                    let rumour = Vertex {
                        identity: Identity {
                            api_version: owner.api_version.clone(),
                            kind: owner.kind.clone(),
                            namespace: namespace.to_owned(),
                            name: owner.name.clone(),
                        },
                        owners: Vec::new(),
                        dependents: HashSet::from([uid.to_owned()]),
                        waits_for_dependents: false,
                        deleting: false,
                        is_rumour: true,
                    };
                    self.vertices.insert(owner.uid.clone(), rumour);
                    work.push(Work::Examine(owner.uid.clone()));
                }
            }
        }
    }

    /// Takes out an object that is gone, or was never there.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        if self.absent.insert(uid.to_owned()) {
            self.absent_order.push_back(uid.to_owned());
            if self.absent_order.len() > ABSENT_LIMIT
                && let Some(oldest) = self.absent_order.pop_front()
            {
                self.absent.remove(&oldest);
            }
        }
        let Some(vertex) = self.vertices.remove(uid) else { return Vec::new() };
        for owner in &vertex.owners {
            if let Some(owner) = self.vertices.get_mut(&owner.uid) {
                owner.dependents.remove(uid);
            }
        }
        let mut work: Vec<_> = vertex.dependents.into_iter().map(Work::Examine).collect();
        work.extend(self.waiting_owners(&vertex.owners));
        work
    }

    /// What is known of an object may no longer be true.
    pub fn doubt(&mut self, uid: &str) -> Vec<Work> {
        let Some(vertex) = self.vertices.get_mut(uid) else { return Vec::new() };
        if vertex.owners.is_empty() && vertex.dependents.is_empty() {
            self.vertices.remove(uid);
            return Vec::new();
        }
        vertex.is_rumour = true;
        vec![Work::Examine(uid.to_owned())]
    }

    /// The dependents that hold back an owner's foreground deletion.
    pub fn blocking(&self, uid: &str) -> Vec<String> {
        let Some(vertex) = self.vertices.get(uid) else { return Vec::new() };
        let blocks = |dependent: &&String| {
            self.vertices.get(*dependent).is_some_and(|dependent| {
                dependent
                    .owners
                    .iter()
                    .any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
        };
        vertex.dependents.iter().filter(blocks).cloned().collect()
    }

    /// The owners through which an object waits for itself: each waits, directly or through others
    /// that wait, for the object to go, and the object waits for them. Nobody else will end that.
    pub fn circle(&self, uid: &str) -> Vec<String> {
        let mut reached = HashSet::new();
        let mut ahead = vec![uid.to_owned()];
        while let Some(at) = ahead.pop() {
            for dependent in self.blocking(&at) {
                let waits = self.get(&dependent).is_some_and(|v| v.waits_for_dependents);
                if waits && reached.insert(dependent.clone()) {
                    ahead.push(dependent);
                }
            }
        }
        let Some(vertex) = self.get(uid).filter(|_| reached.contains(uid)) else {
            return Vec::new();
        };
        let blocked = vertex.owners.iter().filter(|owner| {
            owner.block_owner_deletion == Some(true) && reached.contains(&owner.uid)
        });
        blocked.map(|owner| owner.uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(name: &str) -> Identity {
        Identity {
            api_version: "v1".into(),
            kind: "Thing".into(),
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    fn meta(uid: &str, owner: Option<&str>, deleting: bool, finalizers: &[&str]) -> ObjectMeta {
        let owners: Vec<_> = owner
            .into_iter()
            .map(|uid| {
                json!({"apiVersion": "v1", "kind": "Thing", "name": uid, "uid": uid,
                "blockOwnerDeletion": true})
            })
            .collect();
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "name": uid, "uid": uid, "ownerReferences": owners, "finalizers": finalizers,
            "deletionTimestamp": deleted,
        }))
        .unwrap()
    }

    fn examine(uid: &str) -> Work {
        Work::Examine(uid.into())
    }

    #[test]
    fn dependents_are_examined_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert!(graph.observe(identity("owner"), &meta("owner", None, false, &[])).is_empty());
        assert!(graph.observe(identity("dep"), &meta("dep", Some("owner"), false, &[])).is_empty());
        assert_eq!(graph.remove("owner"), [examine("dep")]);
        assert!(graph.is_absent("owner"));
        let late = graph.observe(identity("late"), &meta("late", Some("owner"), false, &[]));
        assert_eq!(late, [examine("late")]);
    }

    #[test]
    fn an_owner_that_nobody_has_seen_is_asked_about() {
        let mut graph = Graph::default();
        let work = graph.observe(identity("dep"), &meta("dep", Some("ghost"), false, &[]));
        assert_eq!(work, [examine("ghost")]);
        assert!(graph.get("ghost").unwrap().is_rumour);
        assert_eq!(graph.remove("ghost"), [examine("dep")]);
        graph.observe(identity("owner"), &meta("owner", None, false, &[]));
        assert!(!graph.get("owner").unwrap().is_rumour);
    }

    #[test]
    fn a_late_reference_to_an_owner_that_is_gone_is_looked_at() {
        let mut graph = Graph::default();
        graph.observe(identity("dep"), &meta("dep", None, false, &[]));
        graph.remove("owner");
        let late = meta("dep", Some("owner"), false, &[]);
        assert_eq!(graph.observe(identity("dep"), &late), [examine("dep")]);
        assert!(graph.observe(identity("dep"), &late).is_empty(), "once");
        graph.observe(identity("owner"), &meta("owner", None, false, &[]));
        assert!(!graph.is_absent("owner"), "it is there after all");
    }

    #[test]
    fn a_doubted_object_is_asked_about_and_not_taken_for_gone() {
        let mut graph = Graph::default();
        graph.observe(identity("owner"), &meta("owner", None, false, &[]));
        graph.observe(identity("dep"), &meta("dep", Some("owner"), false, &[]));
        graph.observe(identity("alone"), &meta("alone", None, false, &[]));
        assert_eq!(graph.doubt("owner"), [examine("owner")]);
        assert_eq!(graph.doubt("dep"), [examine("dep")]);
        assert!(graph.doubt("alone").is_empty() && graph.get("alone").is_none());
        assert!(!graph.is_absent("owner") && !graph.is_absent("alone"));
        assert!(graph.get("owner").unwrap().is_rumour);
        assert!(graph.get("owner").unwrap().dependents.contains("dep"));
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.observe(identity("owner"), &meta("owner", None, false, &[]));
        graph.observe(identity("dep"), &meta("dep", Some("owner"), false, &[]));
        let work = graph.observe(identity("owner"), &meta("owner", None, true, &[FOREGROUND]));
        assert_eq!(work, [examine("dep"), examine("owner")]);
        assert_eq!(graph.blocking("owner"), ["dep"]);
        assert_eq!(graph.remove("dep"), [examine("owner")]);
        assert!(graph.blocking("owner").is_empty());
    }

    #[test]
    fn a_circle_is_found_once_all_of_it_waits() {
        let mut graph = Graph::default();
        let mut wait = |uid: &str, owner: &str, waits: bool| {
            let finalizers: &[&str] = if waits { &[FOREGROUND] } else { &[] };
            graph.observe(identity(uid), &meta(uid, Some(owner), waits, finalizers));
            [graph.circle("a"), graph.circle("b"), graph.circle("c")].concat()
        };
        for (uid, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            assert!(wait(uid, owner, false).is_empty());
        }
        assert!(wait("a", "c", true).is_empty());
        assert!(wait("b", "a", true).is_empty());
        assert_eq!(wait("c", "b", true), ["c", "a", "b"]);
        // Beside the circle: waits for it, and is not waited for.
        graph.observe(identity("top"), &meta("top", None, true, &[FOREGROUND]));
        graph.observe(identity("a"), &meta("a", Some("top"), true, &[FOREGROUND]));
        assert!(graph.circle("top").is_empty() && graph.circle("a").is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_by_its_finalizer() {
        let mut graph = Graph::default();
        let work = graph.observe(identity("owner"), &meta("owner", None, true, &[ORPHAN]));
        assert_eq!(work, [Work::Orphan("owner".into())]);
    }
}
