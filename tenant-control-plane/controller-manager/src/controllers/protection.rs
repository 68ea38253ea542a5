//! Storage protection: claims, volumes and their attribute classes carry a finalizer, which is taken
//! off an object that is being deleted once nothing uses it any more.

use std::sync::Arc;

use component::workqueue::Requeue;
use component::{Change, Informer, Object, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::context::{Context, Running, enqueue_changes};
use crate::owners;
use crate::pods;
use crate::writes::{Writer, ignore_missing};

const OF_CLAIMS: &str = "kubernetes.io/pvc-protection";
const OF_VOLUMES: &str = "kubernetes.io/pv-protection";
const OF_CLASSES: &str = "kubernetes.io/vac-protection";

/// What has to happen to an object's finalizer.
#[derive(Debug, PartialEq)]
enum Need {
    Nothing,
    Add,
    /// If nothing uses the object.
    Remove,
}

fn need<K: Object>(object: &K, finalizer: &str) -> Need {
    let meta = object.meta();
    let has = meta.finalizers.iter().flatten().any(|has| has == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Need::Remove,
        (false, false) => Need::Add,
        _ => Need::Nothing,
    }
}

/// Writes the whole object: the controllers' roles allow no patch.
async fn write<K: Object + Serialize>(
    writer: &Writer<K>,
    object: &K,
    finalizer: &str,
    add: bool,
) -> anyhow::Result<Requeue> {
    let mut updated = object.clone();
    let finalizers = updated.meta_mut().finalizers.get_or_insert_default();
    finalizers.retain(|has| has != finalizer);
    if add {
        finalizers.push(finalizer.to_owned());
    }
    ignore_missing(writer.replace(&updated).await)?;
    Ok(None)
}

/// Registers the controller of claims.
///
/// # Errors
/// Never.
pub fn start_claims(context: &Context) -> anyhow::Result<Option<Running>> {
    let claims = context.informer::<PersistentVolumeClaim>();
    let cache = pods::informer(context);
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&claims, &queue);
    let wake = queue.clone();
    cache.on_change(move |change| {
        let pod = change.latest();
        if change.new.is_none() || pod.metadata.deletion_timestamp.is_some() {
            for name in volumes(pod).filter_map(|volume| claim_of(pod, volume)) {
                wake.add(ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), name));
            }
        }
    });
    let writer = Writer::new(context.client.clone(), claims);
    let client = context.client.clone();
    Ok(Some(context.work("persistentvolumeclaim-protection", queue, 2, move |key| {
        let (writer, cache, client) = (writer.clone(), cache.clone(), client.clone());
        async move {
            let Some(claim) = writer.cache().get(&key) else { return Ok(None) };
            match need(claim.as_ref(), OF_CLAIMS) {
                Need::Nothing => return Ok(None),
                Need::Add => return write(&writer, claim.as_ref(), OF_CLAIMS, true).await,
                Need::Remove => {}
            }
            if cache.list_namespace(&key.namespace).iter().any(|pod| uses(pod, &claim)) {
                return Ok(None);
            }
            // A pod may have been bound a moment ago.
            let api: Api<Pod> = Api::namespaced(client, &key.namespace);
            let live = api.list(&ListParams::default()).await?;
            if live.items.iter().any(|pod| uses(pod, &claim)) {
                return Ok(None);
            }
            write(&writer, claim.as_ref(), OF_CLAIMS, false).await
        }
    })))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The name of the claim behind a pod's volume.
pub(super) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if volume.ephemeral.is_some() {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        return Some(format!("{name}-{}", volume.name));
    }
    volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone())
}

/// True when the pod is on a node and has the claim mounted there, or will have.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if node.is_none_or(str::is_empty) {
        return false;
    }
    let is_over = pod.metadata.deletion_timestamp.is_some()
        && pod.metadata.deletion_grace_period_seconds == Some(0);
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    volumes(pod).any(|volume| {
        let is_own = || !is_over && owners::is_controlled_by(&claim.metadata, uid);
        claim_of(pod, volume) == claim.metadata.name && (volume.ephemeral.is_none() || is_own())
    })
}

/// Registers the controller of volumes.
///
/// # Errors
/// Never.
pub fn start_volumes(context: &Context) -> anyhow::Result<Option<Running>> {
    let volumes = context.informer::<PersistentVolume>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&volumes, &queue);
    let writer = Writer::new(context.client.clone(), volumes);
    Ok(Some(context.work("persistentvolume-protection", queue, 2, move |key| {
        let writer = writer.clone();
        async move {
            let Some(volume) = writer.cache().get(&key) else { return Ok(None) };
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            match need(volume.as_ref(), OF_VOLUMES) {
                Need::Add => write(&writer, volume.as_ref(), OF_VOLUMES, true).await,
                Need::Remove if phase != Some("Bound") => {
                    write(&writer, volume.as_ref(), OF_VOLUMES, false).await
                }
                Need::Remove | Need::Nothing => Ok(None),
            }
        }
    })))
}

/// Registers the controller of attribute classes.
///
/// # Errors
/// Never.
pub fn start_classes(context: &Context) -> anyhow::Result<Option<Running>> {
    let classes = context.informer::<VolumeAttributesClass>();
    let claims = context.informer::<PersistentVolumeClaim>();
    let volumes = context.informer::<PersistentVolume>();
    let queue = Arc::new(WorkQueue::new());
    enqueue_changes(&classes, &queue);
    wake_former(&claims, &queue, classes_of_claim);
    wake_former(&volumes, &queue, classes_of_volume);
    let writer = Writer::new(context.client.clone(), classes);
    Ok(Some(context.work("volumeattributesclass-protection", queue, 1, move |key| {
        let (writer, claims, volumes) = (writer.clone(), claims.clone(), volumes.clone());
        async move {
            let Some(class) = writer.cache().get(&key) else { return Ok(None) };
            let is_used = || {
                volumes.list().iter().any(|volume| classes_of_volume(volume).contains(&key.name))
                    || claims.list().iter().any(|claim| classes_of_claim(claim).contains(&key.name))
            };
            match need(class.as_ref(), OF_CLASSES) {
                Need::Add => write(&writer, class.as_ref(), OF_CLASSES, true).await,
                Need::Remove if !is_used() => {
                    write(&writer, class.as_ref(), OF_CLASSES, false).await
                }
                Need::Remove | Need::Nothing => Ok(None),
            }
        }
    })))
}

/// Wakes the classes that a changed or vanished object named before.
fn wake_former<K: Object>(
    cache: &Informer<K>,
    queue: &Arc<WorkQueue<ObjectKey>>,
    classes: fn(&K) -> Vec<String>,
) {
    let queue = queue.clone();
    cache.on_change(move |change: &Change<'_, K>| {
        let now = change.new.map(|object| classes(object)).unwrap_or_default();
        for class in change.old.iter().flat_map(|object| classes(object)) {
            if !now.contains(&class) {
                queue.add(ObjectKey::new("", class));
            }
        }
    });
}

fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    volume.spec.iter().filter_map(|spec| spec.volume_attributes_class_name.clone()).collect()
}

fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let change = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = change.and_then(|change| change.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(meta: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    #[test]
    fn the_finalizer_follows_the_objects_life() {
        let need = |meta: Value| super::need(&claim(meta), OF_CLAIMS);
        assert_eq!(need(json!({})), Need::Add);
        assert_eq!(need(json!({"finalizers": [OF_CLAIMS]})), Need::Nothing);
        let deleted = "2026-01-01T00:00:00Z";
        let going = json!({"finalizers": [OF_CLAIMS], "deletionTimestamp": deleted});
        assert_eq!(need(going), Need::Remove);
        assert_eq!(need(json!({"deletionTimestamp": deleted})), Need::Nothing);
    }

    #[test]
    fn a_pod_on_a_node_uses_its_claims() {
        let pod = |node: &str, volume: Value, meta: Value| -> Pod {
            let mut pod = json!({"metadata": {"name": "p", "uid": "u"},
                "spec": {"nodeName": node, "containers": [], "volumes": [volume]}});
            let own = pod["metadata"].as_object_mut().unwrap();
            own.extend(meta.as_object().unwrap().clone());
            serde_json::from_value(pod).unwrap()
        };
        let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
        let data = claim(json!({"name": "data"}));
        assert!(uses(&pod("n", named.clone(), json!({})), &data));
        assert!(!uses(&pod("", named.clone(), json!({})), &data));
        assert!(!uses(&pod("n", named, json!({})), &claim(json!({"name": "other"}))));
        let ephemeral = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u",
            "controller": true}]);
        let own = claim(json!({"name": "p-v", "ownerReferences": owner}));
        assert!(uses(&pod("n", ephemeral.clone(), json!({})), &own));
        assert!(!uses(&pod("n", ephemeral.clone(), json!({})), &claim(json!({"name": "p-v"}))));
        let over = json!({"deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0});
        assert!(!uses(&pod("n", ephemeral, over), &own));
    }
}
