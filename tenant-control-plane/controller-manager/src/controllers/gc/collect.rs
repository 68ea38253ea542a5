//! One step of collection: read the object and its owners from the API server, then delete it, let
//! it go, or leave it.

use component::workqueue::Requeue;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::metadata::PartialObjectMeta;
use serde_json::{Value, json};

use super::Collector;
use super::graph::{FOREGROUND, Identity, ORPHAN, Vertex, Work};
use crate::writes::{code, ignore_missing};

/// Reads of single objects need only their metadata.
const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What an owner reference turned out to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerState {
    /// The owner is there.
    Solid,
    /// The owner is gone, or another object has its name.
    Dangling,
    /// The owner is there, but only until its dependents are gone.
    Waiting,
    /// The reference names a kind that is not served: nothing can be said yet.
    Unknown,
    /// No object can be what the reference names.
    Nonsense,
}

/// Where an object is read and written.
enum Place {
    At(String),
    /// Nobody serves the kind, at this time.
    Unserved,
    /// An object of a namespace, named without one.
    Nowhere,
}

/// How far a piece of work came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// It needs a kind that is not served, at this time.
    Unserved,
}

/// What to do with an object, given the states of its owners.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    /// Some owners remain: take the others' references off.
    DropReferences,
    Delete {
        foreground: bool,
    },
}

fn decide(states: &[OwnerState], has_dependents: bool) -> Decision {
    let any = |state| states.contains(&state);
    if states.is_empty() || any(OwnerState::Unknown) || any(OwnerState::Nonsense) {
        return Decision::Keep;
    }
    let lost = any(OwnerState::Dangling) || any(OwnerState::Waiting);
    match (any(OwnerState::Solid), lost) {
        (true, true) => Decision::DropReferences,
        (true, false) => Decision::Keep,
        // The owner waits for this object, and so must this object for its own dependents.
        (false, _) => Decision::Delete { foreground: any(OwnerState::Waiting) && has_dependents },
    }
}

fn policy(meta: &ObjectMeta, foreground: bool) -> &'static str {
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|has| has == finalizer);
    if foreground || has(FOREGROUND) {
        "Foreground"
    } else if has(ORPHAN) {
        "Orphan"
    } else {
        "Background"
    }
}

impl Collector {
    pub(super) async fn handle(&self, work: Work) -> anyhow::Result<Requeue> {
        let generation = self.served.generation();
        let progress = match &work {
            Work::Examine(uid) => self.examine(uid).await?,
            Work::Orphan(uid) => self.orphan(uid).await?,
        };
        if progress == Progress::Unserved && !self.served.park(work.clone(), generation) {
            self.queue.add(work);
        }
        Ok(None)
    }

    fn place(&self, identity: &Identity) -> Place {
        let Some(resource) = self.served.find(&identity.api_version, &identity.kind) else {
            return Place::Unserved;
        };
        let base = match (resource.namespaced, identity.namespace.as_str()) {
            (true, "") => return Place::Nowhere,
            (true, namespace) => resource.path(Some(namespace)),
            (false, _) => resource.path(None),
        };
        Place::At(format!("{base}/{}", identity.name))
    }

    async fn read(&self, path: &str) -> Result<Option<ObjectMeta>, kube::Error> {
        let request = http::Request::get(path).header(http::header::ACCEPT, METADATA);
        let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
        let answer = self.client.request::<PartialObjectMeta>(request).await;
        Ok(ignore_missing(answer)?.map(|object| object.metadata))
    }

    async fn send(&self, method: http::Method, path: &str, body: Value) -> Result<(), kube::Error> {
        let kind = match method {
            http::Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn examine(&self, uid: &str) -> anyhow::Result<Progress> {
        let Some(vertex) = self.graph().get(uid).cloned() else { return Ok(Progress::Done) };
        let path = match self.place(&vertex.identity) {
            Place::At(path) => path,
            Place::Unserved => return Ok(Progress::Unserved),
            Place::Nowhere => return Ok(Progress::Done),
        };
        let live = self.read(&path).await?.filter(|meta| meta.uid.as_deref() == Some(uid));
        let Some(live) = live else {
            let work = self.graph().remove(uid);
            self.enqueue(work);
            return Ok(Progress::Done);
        };
        if vertex.is_rumour {
            let work = self.graph().observe(vertex.identity.clone(), &live);
            self.enqueue(work);
        }
        if vertex.waits_for_dependents {
            self.finish_foreground(uid, &path, &live).await?;
            return Ok(Progress::Done);
        }
        if live.deletion_timestamp.is_some() {
            return Ok(Progress::Done);
        }
        self.judge(&vertex, uid, &path, &live).await
    }

    /// Does what the states of the object's owners ask for.
    async fn judge(
        &self,
        vertex: &Vertex,
        uid: &str,
        path: &str,
        live: &ObjectMeta,
    ) -> anyhow::Result<Progress> {
        let owners = live.owner_references.clone().unwrap_or_default();
        let states = join_all(owners.iter().map(|o| self.state(o, &vertex.identity.namespace)));
        let states = states.await.into_iter().collect::<Result<Vec<_>, _>>()?;
        match decide(&states, !vertex.dependents.is_empty()) {
            Decision::Keep if states.contains(&OwnerState::Unknown) => {
                return Ok(Progress::Unserved);
            }
            Decision::Keep => {}
            Decision::DropReferences => {
                let kept: Vec<_> = owners
                    .iter()
                    .zip(&states)
                    .filter(|(_, state)| **state == OwnerState::Solid)
                    .map(|(owner, _)| owner)
                    .collect();
                self.send(http::Method::PATCH, path, references(live, &kept)).await?;
            }
            Decision::Delete { foreground } => {
                let policy = policy(live, foreground);
                tracing::info!(
                    kind = %vertex.identity.kind, namespace = %vertex.identity.namespace,
                    name = %vertex.identity.name, policy, "deleting an object without owners"
                );
                let options = json!({
                    "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy,
                    "preconditions": {"uid": uid, "resourceVersion": live.resource_version},
                });
                self.send(http::Method::DELETE, path, options).await?;
            }
        }
        Ok(Progress::Done)
    }

    async fn state(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<OwnerState, kube::Error> {
        {
            let graph = self.graph();
            if let Some(vertex) = graph.get(&owner.uid).filter(|vertex| !vertex.is_rumour) {
                return Ok(match vertex.waits_for_dependents {
                    true if owner.block_owner_deletion == Some(true) || vertex.deleting => {
                        OwnerState::Waiting
                    }
                    _ => OwnerState::Solid,
                });
            }
            if graph.is_absent(&owner.uid) {
                return Ok(OwnerState::Dangling);
            }
        }
        let identity = Identity {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
        };
        let path = match self.place(&identity) {
            Place::At(path) => path,
            Place::Unserved => return Ok(OwnerState::Unknown),
            Place::Nowhere => return Ok(OwnerState::Nonsense),
        };
        Ok(match self.read(&path).await? {
            Some(meta) if meta.uid.as_deref() == Some(&owner.uid) => {
                let waits = meta.deletion_timestamp.is_some()
                    && meta.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
                if waits { OwnerState::Waiting } else { OwnerState::Solid }
            }
            _ => OwnerState::Dangling,
        })
    }

    /// Takes the finalizer off once no dependent blocks, or looks at those that do.
    async fn finish_foreground(
        &self,
        uid: &str,
        path: &str,
        live: &ObjectMeta,
    ) -> anyhow::Result<()> {
        let blocking = self.graph().blocking(uid);
        if !blocking.is_empty() {
            let dependents =
                self.graph().get(uid).map(|v| v.dependents.clone()).unwrap_or_default();
            let deleting = |uid: &String| self.graph().get(uid).is_some_and(|v| v.deleting);
            let fresh: Vec<_> = dependents.into_iter().filter(|uid| !deleting(uid)).collect();
            self.enqueue(fresh.into_iter().map(Work::Examine).collect());
            return self.leave_circle(uid, path, live).await;
        }
        self.drop_finalizer(path, live, FOREGROUND).await
    }

    /// Stops holding back owners that cannot go before this object, which cannot go before them.
    async fn leave_circle(&self, uid: &str, path: &str, live: &ObjectMeta) -> anyhow::Result<()> {
        let circle = self.graph().circle(uid);
        if circle.is_empty() {
            return Ok(());
        }
        let mut references = live.owner_references.clone().unwrap_or_default();
        for reference in references.iter_mut().filter(|r| circle.contains(&r.uid)) {
            reference.block_owner_deletion = Some(false);
        }
        tracing::info!(
            uid,
            "an object waits for its own deletion through its owners; it lets them go"
        );
        let kept: Vec<_> = references.iter().collect();
        Ok(self.send(http::Method::PATCH, path, self::references(live, &kept)).await?)
    }

    async fn drop_finalizer(
        &self,
        path: &str,
        live: &ObjectMeta,
        which: &str,
    ) -> anyhow::Result<()> {
        let mut finalizers = live.finalizers.clone().unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|finalizer| finalizer != which);
        if finalizers.len() == before {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": live.uid, "resourceVersion": live.resource_version, "finalizers": finalizers,
        }});
        Ok(self.send(http::Method::PATCH, path, patch).await?)
    }

    /// Takes the owner's reference off all its dependents, then its finalizer off the owner: a
    /// dependent that kept the reference would be deleted once the owner is gone.
    async fn orphan(&self, uid: &str) -> anyhow::Result<Progress> {
        let Some(owner) = self.graph().get(uid).cloned() else { return Ok(Progress::Done) };
        for dependent in &owner.dependents {
            let Some(vertex) = self.graph().get(dependent).cloned() else { continue };
            let path = match self.place(&vertex.identity) {
                Place::At(path) => path,
                Place::Unserved => return Ok(Progress::Unserved),
                Place::Nowhere => continue,
            };
            let live = self.read(&path).await?;
            let Some(live) = live.filter(|meta| meta.uid.as_ref() == Some(dependent)) else {
                continue;
            };
            let all = live.owner_references.clone().unwrap_or_default();
            let kept: Vec<_> = all.iter().filter(|reference| reference.uid != uid).collect();
            if kept.len() != all.len() {
                self.send(http::Method::PATCH, &path, references(&live, &kept)).await?;
            }
        }
        let path = match self.place(&owner.identity) {
            Place::At(path) => path,
            Place::Unserved => return Ok(Progress::Unserved),
            Place::Nowhere => return Ok(Progress::Done),
        };
        if let Some(live) = self.read(&path).await?.filter(|meta| meta.uid.as_deref() == Some(uid))
        {
            self.drop_finalizer(&path, &live, ORPHAN).await?;
        }
        Ok(Progress::Done)
    }
}

fn references(live: &ObjectMeta, kept: &[&OwnerReference]) -> Value {
    json!({"metadata": {
        "uid": live.uid, "resourceVersion": live.resource_version, "ownerReferences": kept,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_while_one_owner_does() {
        use OwnerState::{Dangling, Nonsense, Solid, Unknown, Waiting};
        assert_eq!(decide(&[], false), Decision::Keep);
        assert_eq!(decide(&[Solid], true), Decision::Keep);
        assert_eq!(decide(&[Solid, Dangling], true), Decision::DropReferences);
        assert_eq!(decide(&[Solid, Waiting], true), Decision::DropReferences);
        assert_eq!(decide(&[Dangling], true), Decision::Delete { foreground: false });
        assert_eq!(decide(&[Waiting], true), Decision::Delete { foreground: true });
        assert_eq!(decide(&[Waiting, Dangling], false), Decision::Delete { foreground: false });
        assert_eq!(decide(&[Unknown, Dangling], false), Decision::Keep);
        assert_eq!(decide(&[Nonsense, Dangling], false), Decision::Keep);
    }

    #[test]
    fn the_deletion_policy_follows_the_objects_own_finalizers() {
        let with = |finalizer: &str| ObjectMeta {
            finalizers: Some(vec![finalizer.to_owned()]),
            ..Default::default()
        };
        assert_eq!(policy(&ObjectMeta::default(), false), "Background");
        assert_eq!(policy(&with(ORPHAN), false), "Orphan");
        assert_eq!(policy(&with(FOREGROUND), false), "Foreground");
        assert_eq!(policy(&ObjectMeta::default(), true), "Foreground");
    }
}
