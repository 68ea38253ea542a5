//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, for rolling updates
//! and `kubectl rollout undo`.

use std::sync::Arc;

use component::Object;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::controllers::deployment::fnv_name;
use crate::owners;
use crate::pods::claim_with;
use crate::writes::{Result, Writer, code};

/// Label of pods and revisions with the revision's hash.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The patch that brings an object back to this template.
pub fn template_patch(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// A revision's hash, as its pods carry it.
pub fn hash(revision: &ControllerRevision) -> String {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH_LABEL)).cloned().unwrap_or_default()
}

fn data(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|raw| &raw.0)
}

/// What the present template and the known revisions call for.
#[derive(Debug)]
pub enum Next {
    /// The newest revision is the present template.
    Current(Arc<ControllerRevision>),
    /// An older revision is: it becomes the newest under this number.
    Revive(Arc<ControllerRevision>, i64),
    /// None is: one of this number is made.
    Make(i64),
}

/// Compares the revisions with the present template's patch.
pub fn next(revisions: &[Arc<ControllerRevision>], patch: &Value) -> Next {
    let newest = revisions.iter().map(|revision| revision.revision).max().unwrap_or_default();
    let same = revisions.iter().filter(|revision| data(revision) == Some(patch));
    match same.max_by_key(|revision| revision.revision) {
        Some(found) if found.revision == newest => Next::Current(found.clone()),
        Some(found) => Next::Revive(found.clone(), newest + 1),
        None => Next::Make(newest + 1),
    }
}

/// The revisions that the owner controls.
///
/// # Errors
/// As the API server answers to adoptions.
pub async fn list<O: Object>(
    writer: &Writer<ControllerRevision>,
    owner: &O,
    selector: &LabelSelector,
) -> Result<Vec<Arc<ControllerRevision>>> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let candidates = writer.cache().list_namespace(namespace);
    claim_with(writer, owner, selector, candidates, None).await
}

/// Makes sure that the present template has the newest revision, and returns it.
///
/// # Errors
/// As the API server answers.
pub async fn ensure<O: Object>(
    writer: &Writer<ControllerRevision>,
    owner: &O,
    template: &PodTemplateSpec,
    known: &[Arc<ControllerRevision>],
    collisions: Option<i32>,
) -> Result<Arc<ControllerRevision>> {
    let patch = template_patch(template);
    let number = match next(known, &patch) {
        Next::Current(found) => return Ok(found),
        Next::Revive(found, number) => {
            return writer.patch(&found, json!({"revision": number})).await;
        }
        Next::Make(number) => number,
    };
    let name = owner.meta().name.clone().unwrap_or_default();
    // A name that is taken by other content gets another hash.
    for attempt in 0.. {
        let salt = collisions.unwrap_or_default() + attempt;
        let hash = fnv_name(template, (salt > 0).then_some(salt));
        let mut labels =
            template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(HASH_LABEL.to_owned(), hash.clone());
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: owner.meta().namespace.clone(),
                labels: Some(labels),
                annotations: owner.meta().annotations.clone(),
                owner_references: Some(vec![owners::controller_reference(owner)]),
                ..Default::default()
            },
            data: Some(RawExtension(patch.clone())),
            revision: number,
        };
        match writer.create(&revision).await {
            Err(error) if code(&error) == 409 && attempt < 5 => {}
            other => return other,
        }
    }
    unreachable!("the loop returns")
}

/// Old revisions beyond the limit that nothing uses any more, oldest first.
pub fn surplus(
    revisions: &[Arc<ControllerRevision>],
    in_use: impl Fn(&ControllerRevision) -> bool,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or_default();
    let mut idle: Vec<_> = revisions.iter().filter(|revision| !in_use(revision)).cloned().collect();
    idle.sort_by_key(|revision| revision.revision);
    idle.truncate(idle.len().saturating_sub(limit));
    idle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, image: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            data: Some(RawExtension(template_patch(&template(image)))),
            revision: number,
            ..Default::default()
        })
    }

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}}))
            .unwrap()
    }

    #[test]
    fn a_known_template_gets_its_revision_back_under_a_new_number() {
        let known = [revision(1, "a"), revision(2, "b")];
        let next = |image: &str| super::next(&known, &template_patch(&template(image)));
        assert!(matches!(next("b"), Next::Current(found) if found.revision == 2));
        assert!(matches!(next("a"), Next::Revive(found, 3) if found.revision == 1));
        assert!(matches!(next("c"), Next::Make(3)));
    }

    #[test]
    fn only_idle_revisions_beyond_the_limit_are_surplus() {
        let known = [revision(3, "c"), revision(1, "a"), revision(2, "b"), revision(4, "d")];
        let gone = surplus(&known, |revision| revision.revision == 4, Some(1));
        assert_eq!(gone.iter().map(|r| r.revision).collect::<Vec<_>>(), [1, 2]);
    }
}
