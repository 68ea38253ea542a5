//! What a Job's pod looks like. Pure.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;

use super::FINALIZER;
use super::outcome::{FAILURES, IGNORED, earlier_failures};
use super::policy::judge;
use crate::pods;

/// Annotation and label with the index of an indexed Job's pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Longest start of a generated name that the server keeps whole.
const GENERATE_NAME_MAX: usize = 58;

/// A pod of the Job; with an index for an indexed Job, and with the failed pod that it replaces.
pub(super) fn pod_for(job: &Job, index: Option<i32>, before: Option<&Pod>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let name = job.name_any();
    let mut pod = pods::from_template(&template, job, &name);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else { return pod };
    pod.metadata.generate_name = Some(generate_name(&name, index));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    annotations.extend(job.spec.iter().flat_map(|spec| failures(spec, before)));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..Default::default()
        }),
    };
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in all {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == variable.name) {
            env.push(variable.clone());
        }
    }
    pod
}

/// `sum-3-`, shortened so that the index stays readable in the name of the pod.
fn generate_name(job: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let start: String = job.chars().take(GENERATE_NAME_MAX.saturating_sub(end.len())).collect();
    start + &end
}

/// The annotations that count the failures of an index that has a limit of its own.
fn failures(spec: &JobSpec, before: Option<&Pod>) -> Vec<(String, String)> {
    if spec.backoff_limit_per_index.is_none() {
        return Vec::new();
    }
    let (counted, ignored) = match before {
        Some(pod) => {
            let (counted, ignored) = earlier_failures(pod);
            match judge(spec, pod).counts() {
                true => (counted + 1, ignored),
                false => (counted, ignored + 1),
            }
        }
        None => (0, 0),
    };
    let ignored = (ignored > 0).then(|| (IGNORED.to_owned(), ignored.to_string()));
    [(FAILURES.to_owned(), counted.to_string())].into_iter().chain(ignored).collect()
}

/// The index of an indexed Job's pod.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}
