//! Writes a pod's status to the API server, once per change.

use std::sync::Arc;

use component::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::conditions;
use crate::spec::containers;

/// Times that a write is repeated when somebody else wrote in between.
const CONFLICTS: usize = 4;

/// Writes statuses and keeps the informer's copy as new as the answers.
pub struct Writer {
    client: Client,
    pods: Arc<Informer<Pod>>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The API server has this status now (or had it already).
    Done,
    /// There is no such pod any more.
    Gone,
}

/// The fields that differ, as a merge patch of `status`; `None` when nothing does.
fn difference(old: &PodStatus, new: &PodStatus) -> Option<serde_json::Value> {
    let value = |s: &PodStatus| serde_json::to_value(s).expect("a status has string keys only");
    let (old, new) = (value(old), value(new));
    let (old, new) = (old.as_object()?, new.as_object()?);
    let mut patch = serde_json::Map::new();
    for (key, value) in new {
        if old.get(key) != Some(value) {
            patch.insert(key.clone(), value.clone());
        }
    }
    (!patch.is_empty()).then_some(patch.into())
}

/// `built` on top of `latest`: conditions of others are taken from `latest`.
fn rebase(built: &PodStatus, latest: &PodStatus) -> PodStatus {
    let own = |kind: &str| conditions::OWN.contains(&kind);
    let mut merged: Vec<_> =
        built.conditions.iter().flatten().filter(|c| own(&c.type_)).cloned().collect();
    merged.extend(latest.conditions.iter().flatten().filter(|c| !own(&c.type_)).cloned());
    PodStatus { conditions: Some(merged), ..built.clone() }
}

impl Writer {
    /// A writer that shares the pods' cache.
    pub fn new(client: Client, pods: Arc<Informer<Pod>>) -> Self {
        Self { client, pods }
    }

    /// Makes the API server's status of `pod` equal to `status`.
    ///
    /// # Errors
    /// When the API server refuses it or does not answer; the caller tries again later.
    pub async fn write(&self, pod: &Pod, status: &PodStatus) -> kube::Result<Written> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), containers::namespace(pod));
        let name = containers::name(pod);
        let key = ObjectKey::of(pod);
        let mut latest = self.pods.get(&key).unwrap_or_else(|| Arc::new(pod.clone()));
        for _ in 0..CONFLICTS {
            if containers::uid(&latest) != containers::uid(pod) {
                return Ok(Written::Gone);
            }
            let have = latest.status.clone().unwrap_or_default();
            let Some(change) = difference(&have, &rebase(status, &have)) else {
                return Ok(Written::Done);
            };
            let patch = json!({
                "metadata": {"uid": containers::uid(pod), "resourceVersion": latest.metadata.resource_version},
                "status": change,
            });
            match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(answer) => {
                    self.pods.observe(answer);
                    return Ok(Written::Done);
                }
                Err(kube::Error::Api(error)) if error.code == 404 => return Ok(Written::Gone),
                Err(kube::Error::Api(error)) if error.code == 409 => match api.get_opt(name).await?
                {
                    Some(found) => latest = Arc::new(found),
                    None => return Ok(Written::Gone),
                },
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(
            pod.name = name,
            "the status changed under every write; the next round tries again"
        );
        Ok(Written::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        let old: PodStatus =
            serde_json::from_value(json!({"phase": "Pending", "podIP": "1.2.3.4"})).unwrap();
        let new = PodStatus { phase: Some("Running".into()), ..old.clone() };
        assert_eq!(difference(&old, &new).unwrap(), json!({"phase": "Running"}));
        assert!(difference(&new, &new).is_none());
    }

    #[test]
    fn conditions_of_others_come_from_the_latest() {
        let status =
            |list| serde_json::from_value::<PodStatus>(json!({"conditions": list})).unwrap();
        let built =
            status(json!([{"type": "Ready", "status": "True"}, {"type": "x", "status": "old"}]));
        let latest =
            status(json!([{"type": "Ready", "status": "False"}, {"type": "x", "status": "new"}]));
        let merged = rebase(&built, &latest).conditions.unwrap();
        assert_eq!((merged[0].status.as_str(), merged[1].status.as_str()), ("True", "new"));
    }
}
