//! Ephemeral volumes: makes the claims that pods describe in their own volumes. A claim belongs to
//! its pod and goes with it.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{EventType, ObjectKey, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::protection::claim_of;
use crate::context::{Context, Running};
use crate::owners;
use crate::pods;
use crate::writes::{Writer, code, namespace_is_terminating};

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let cache = pods::informer(context);
    let claims = context.informer::<PersistentVolumeClaim>();
    let queue = Arc::new(WorkQueue::new());
    let wake = queue.clone();
    cache.on_change(move |change| {
        if let Some(pod) = change.new.filter(|pod| !wanted(pod).is_empty()) {
            wake.add(ObjectKey::of(pod.as_ref()));
        }
    });
    let (all, wake) = (cache.clone(), queue.clone());
    claims.on_change(move |change| {
        let lost = change.old.filter(|_| change.new.is_none());
        let owner = lost.and_then(|claim| owners::controller_of(&claim.metadata));
        if let Some(owner) = owner.filter(|owner| owner.kind == "Pod") {
            let namespace = change.latest().metadata.namespace.clone().unwrap_or_default();
            let key = ObjectKey::new(namespace, owner.name.clone());
            if all.get(&key).is_some() {
                wake.add(key);
            }
        }
    });
    let writer = Writer::new(context.client.clone(), claims);
    let recorder = context.recorder("ephemeral_volume");
    Ok(Some(context.work("ephemeral-volume", queue, 5, move |key| {
        let (writer, cache, recorder) = (writer.clone(), cache.clone(), recorder.clone());
        async move {
            match cache.get(&key).filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                Some(pod) => sync(&writer, &recorder, &pod).await,
                None => Ok(None),
            }
        }
    })))
}

/// The claims of a pod's ephemeral volumes, each with the volume's name.
fn wanted(pod: &Pod) -> Vec<(String, PersistentVolumeClaim)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let meta = template.metadata.clone().unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: claim_of(pod, volume),
                namespace: pod.metadata.namespace.clone(),
                owner_references: Some(vec![owners::controller_reference(pod)]),
                annotations: meta.annotations,
                labels: meta.labels,
                ..Default::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        Some((volume.name.clone(), claim))
    });
    claims.collect()
}

async fn sync(
    writer: &Writer<PersistentVolumeClaim>,
    recorder: &Recorder,
    pod: &Pod,
) -> anyhow::Result<Requeue> {
    for (volume, claim) in wanted(pod) {
        let key = ObjectKey::of(&claim);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let why = match writer.cache().get(&key) {
            Some(there) if owners::is_controlled_by(&there.metadata, uid) => continue,
            Some(_) => format!(
                "PVC {key} was not created for pod {} (pod is not owner)",
                ObjectKey::of(pod)
            ),
            None => match writer.create(&claim).await {
                Ok(_) => continue,
                Err(error) if namespace_is_terminating(&error) => return Ok(None),
                // The cache will show it in a moment.
                Err(error) if code(&error) == 409 => return Err(error.into()),
                Err(error) => format!("create PVC {}: {}", key.name, pods::plain(&error)),
            },
        };
        let message = format!("ephemeral volume {volume}: {why}");
        recorder.event(pod, EventType::Warning, "FailedBinding", message.clone());
        anyhow::bail!(message);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_made_from_the_volume_and_belongs_to_the_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "plain", "emptyDir": {}},
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"accessModes": ["ReadWriteOnce"]}}}}]},
        }))
        .unwrap();
        let [(volume, claim)] = wanted(&pod).try_into().unwrap();
        assert_eq!(
            (volume.as_str(), claim.metadata.name.as_deref()),
            ("scratch", Some("p-scratch"))
        );
        assert!(owners::is_controlled_by(&claim.metadata, "u"));
        assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
        assert_eq!(claim.spec.unwrap().access_modes.unwrap(), ["ReadWriteOnce"]);
    }
}
