//! What makes a StatefulSet's pod this one and no other. Pure.

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use kube::ResourceExt;

use crate::pods;
use crate::revisions::HASH_LABEL;

/// Label with the pod's own name, for Services of single pods.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the ordinal.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod of the set; `None` for a pod of another name.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.name_any();
    let text = name.strip_prefix(&set.name_any())?.strip_prefix('-')?;
    let canonical = text == "0" || !text.starts_with(['0', '+', '-']);
    text.parse().ok().filter(|_| canonical)
}

/// The name of a pod's revision.
pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH_LABEL).map(String::as_str)
}

fn template_of(set: &StatefulSet, revision: &ControllerRevision) -> PodTemplateSpec {
    let stored = revision.data.as_ref().map(|raw| raw.0["spec"]["template"].clone());
    let stored = stored.and_then(|value| serde_json::from_value(value).ok());
    stored
        .unwrap_or_else(|| set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default())
}

fn claim_name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.name_any())
}

/// The pod of an ordinal, in a revision.
pub(super) fn pod_for(set: &StatefulSet, revision: &ControllerRevision, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pods::from_template(&template_of(set, revision), set, &name);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(HASH_LABEL.to_owned(), revision.name_any());
    let spec = set.spec.clone().unwrap_or_default();
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.filter(|service| !service.is_empty());
    let volumes = pod_spec.volumes.get_or_insert_default();
    for template in spec.volume_claim_templates.iter().flatten() {
        volumes.retain(|volume| volume.name != template.name_any());
        volumes.push(Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(template, &name),
                read_only: None,
            }),
            ..Default::default()
        });
    }
    pod
}

/// The claims that a pod of the set needs. They outlive the pod and the set.
pub(super) fn claims(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let spec = set.spec.clone().unwrap_or_default();
    let templates = spec.volume_claim_templates.unwrap_or_default();
    let claim = |template: PersistentVolumeClaim| {
        let mut claim = PersistentVolumeClaim {
            metadata: template.metadata.clone(),
            spec: template.spec.clone(),
            status: None,
        };
        claim.metadata.name = Some(claim_name(&template, &pod.name_any()));
        claim.metadata.namespace = set.metadata.namespace.clone();
        let selected = spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim
    };
    templates.into_iter().map(claim).collect()
}
