//! Comparing pod templates and naming ReplicaSets after them.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;

/// Label that tells the pods of one template from another's.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Characters that cannot form words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for a value: FNV-1a (32 bits) over its JSON and a collision count.
pub fn fnv_name(value: &impl Serialize, collisions: Option<i32>) -> String {
    // A typed Kubernetes object has string keys only, and always serialises.
    let mut bytes = serde_json::to_vec(value).expect("a Kubernetes object is valid JSON");
    if let Some(count) = collisions {
        bytes.extend(count.to_le_bytes());
    }
    let hash = bytes
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let letters = hash.to_string().into_bytes();
    letters
        .into_iter()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let meta = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    meta.creation_timestamp = None;
    template
}

/// True when the ReplicaSet runs the Deployment's template.
pub fn is_current(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| without_hash(&spec.template));
    let has = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(without_hash);
    wanted.is_some() && wanted == has
}

/// The ReplicaSet that runs the Deployment's template: the oldest, should there be several.
pub fn newest<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
    let current = sets.iter().filter(|set| is_current(deployment, set));
    current.min_by_key(|set| {
        (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
    })
}
