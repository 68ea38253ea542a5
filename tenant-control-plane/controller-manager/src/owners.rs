//! Owner references: which controller an object belongs to, and who may adopt it.

use std::sync::Arc;

use component::{Object, selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::core::Status;
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

/// Whether an owner may adopt, given what the API server has under its name.
///
/// # Errors
/// A conflict, when it is another object or is being deleted.
pub fn may_adopt<O: Object>(owner: &O, live: Option<&ObjectMeta>) -> Result<(), kube::Error> {
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let why = match live {
        Some(live) if live.uid != owner.meta().uid => "is another object by now",
        Some(live) if live.deletion_timestamp.is_some() => "is being deleted",
        Some(_) => return Ok(()),
        None => "is gone",
    };
    let message = format!("{} {name} does not adopt: it {why}", O::kind(&()));
    let status = Status::failure(&message, "Conflict").with_code(409);
    Err(kube::Error::Api(Box::new(status)))
}

/// A merge patch that adds the owner to the object, and a finalizer if there is one to add, if the
/// object is still the one that was seen.
pub fn adoption_patch<T: Object, O: Object>(
    object: &T,
    owner: &O,
    finalizer: Option<&str>,
) -> Value {
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    let mut patch = reference_patch(object, &references);
    if let Some(finalizer) = finalizer {
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|known| known == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        patch["metadata"]["finalizers"] = finalizers.into();
    }
    patch
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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

        owner.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let claims = super::claim(&owner, &selector, pods());
        assert_eq!(names(&claims.owned), ["mine", "stray"]);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }

    #[test]
    fn an_owner_that_is_gone_or_going_adopts_nothing() {
        let owner = pod("owner", "web", None);
        let meta = |uid: Option<&str>, deleting: bool| ObjectMeta {
            uid: uid.map(str::to_owned),
            deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..Default::default()
        };
        let owner = owner.as_ref();
        assert!(may_adopt(owner, Some(&meta(None, false))).is_ok());
        for live in [Some(meta(Some("2"), false)), Some(meta(None, true)), None] {
            let refused = may_adopt(owner, live.as_ref()).unwrap_err();
            assert_eq!(crate::writes::code(&refused), 409);
        }
    }

    #[test]
    fn an_adopted_object_gets_the_finalizer_once() {
        let (owner, mut object) = (pod("owner", "web", None), pod("object", "web", None));
        let patch = |object: &Pod, finalizer| adoption_patch(object, owner.as_ref(), finalizer);
        assert!(patch(&object, None)["metadata"].get("finalizers").is_none());
        assert_eq!(patch(&object, Some("a/b"))["metadata"]["finalizers"], json!(["a/b"]));
        let finalizers = vec!["x/y".to_owned(), "a/b".to_owned()];
        Arc::make_mut(&mut object).metadata.finalizers = Some(finalizers);
        assert_eq!(patch(&object, Some("a/b"))["metadata"]["finalizers"], json!(["x/y", "a/b"]));
    }
}
