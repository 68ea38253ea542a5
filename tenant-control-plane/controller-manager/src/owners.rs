//! Owner references: which controller an object belongs to, and who may adopt it.

use std::sync::Arc;

use component::{Object, selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// Index of a cache by the uid of the owner that controls the object.
pub const BY_CONTROLLER: &str = "controller";

/// The reference to the owner that controls the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Keys of [`BY_CONTROLLER`].
pub fn controller_keys<K: Object>(object: &K) -> Vec<String> {
    controller_of(object.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// True when the object is controlled by that uid.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// A reference that makes `owner` the controller of what carries it, and holds back the owner's
/// foreground deletion.
pub fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a controller should do about the objects that its selector or its references touch.
#[derive(Debug)]
pub struct Claims<T> {
    /// Controlled already, and selected.
    pub owned: Vec<Arc<T>>,
    /// Selected, without a controller: to be adopted.
    pub adopt: Vec<Arc<T>>,
    /// Controlled, but no longer selected: to be released.
    pub release: Vec<Arc<T>>,
}

/// Sorts candidates. An owner that is being deleted neither adopts nor releases.
pub fn claim<T: Object, O: Object>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<T>>,
) -> Claims<T> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in candidates {
        let meta = object.meta();
        let selected = selector::matches(selector, meta.labels.as_ref());
        match controller_of(meta) {
            Some(owner) if owner.uid == uid && (selected || deleting) => claims.owned.push(object),
            Some(owner) if owner.uid == uid => claims.release.push(object),
            Some(_) => {}
            None if selected && !deleting && meta.deletion_timestamp.is_none() => {
                claims.adopt.push(object);
            }
            None => {}
        }
    }
    claims
}

/// A merge patch that adds the owner to the object, if the object is still the one that was seen.
pub fn adoption_patch<T: Object, O: Object>(object: &T, owner: &O) -> Value {
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    reference_patch(object, &references)
}

/// A merge patch that takes the owner's reference off the object.
pub fn release_patch<T: Object>(object: &T, owner_uid: &str) -> Value {
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner_uid);
    reference_patch(object, &references)
}

fn reference_patch<T: Object>(object: &T, references: &[OwnerReference]) -> Value {
    let meta = object.meta();
    json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": references,
    }})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, app: &str, owner: Option<&str>) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": app}}
        }))
        .unwrap();
        pod.metadata.owner_references = owner.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]
        });
        Arc::new(pod)
    }

    #[test]
    fn orphans_are_adopted_and_strays_released() {
        let mut owner: ReplicaSet = serde_json::from_value(
            json!({"metadata": {"name": "rs", "uid": "1"}, "spec": {"selector": {}}}),
        )
        .unwrap();
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
        let pods = || {
            vec![
                pod("mine", "web", Some("1")),
                pod("orphan", "web", None),
                pod("stray", "db", Some("1")),
                pod("theirs", "web", Some("2")),
                pod("other", "db", None),
            ]
        };
        let names = |list: &[Arc<Pod>]| {
            list.iter().map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        let claims = claim(&owner, &selector, pods());
        assert_eq!(names(&claims.owned), ["mine"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["stray"]);

        owner.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let claims = super::claim(&owner, &selector, pods());
        assert_eq!(names(&claims.owned), ["mine", "stray"]);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
