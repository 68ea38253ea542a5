//! A pod's status: built from what runs (pure), and written to the API server when it changed.

pub mod conditions;
pub mod container;
pub mod phase;
pub mod sizes;
pub mod writer;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods::plan::{Health, Waiting};
use crate::runtime::observe;
use crate::spec::{containers, resources};

/// Everything that the status is made of.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct View<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a observe::Pod,
    pub health: &'a Health,
    /// Why containers wait, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    /// Last words of ended containers, by container id.
    pub messages: &'a HashMap<String, String>,
    /// `containerd`, as in `containerd://<id>`.
    pub runtime_name: &'a str,
    pub host_ips: &'a [String],
    /// Nothing of the pod runs any more and nothing will.
    pub over: bool,
    /// Why the kubelet ended the pod, if it did: reason and message, as in `DeadlineExceeded`.
    pub verdict: Option<(&'a str, &'a str)>,
    /// Conditions of the moment.
    pub standing: &'a [conditions::Standing],
    pub now: Timestamp,
}

/// The whole status. Conditions and fields of others are kept as they are in the pod.
pub fn build(view: &View<'_>) -> PodStatus {
    let pod = view.pod;
    let old = pod.status.clone().unwrap_or_default();
    let app = container::all(view, containers::Kind::App);
    let init = container::all(view, containers::Kind::Init);
    let ephemeral = container::all(view, containers::Kind::Ephemeral);
    let phase = match old.phase.as_deref() {
        // A final phase never changes (the containers' records may be gone by now).
        Some(done @ ("Succeeded" | "Failed")) => done.to_owned(),
        _ if view.verdict.is_some() => "Failed".to_owned(),
        _ => phase::phase(pod, &init, &app, view.over).to_owned(),
    };
    let sandbox = view.runtime.sandbox().filter(|s| s.ready);
    let own_ips = sandbox.map(|s| s.ips.clone()).unwrap_or_default();
    let host_network = containers::host_network(pod);
    let old_ips = old.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect::<Vec<_>>();
    // A pod that ended keeps the addresses that it had.
    let ips = match (host_network, own_ips.is_empty()) {
        (true, _) => view.host_ips.to_vec(),
        (false, true) => old_ips,
        (false, false) => own_ips,
    };
    let conditions = conditions::build(view, &old, &phase, &init, &app);
    let some = |list: Vec<_>| (!list.is_empty()).then_some(list);
    PodStatus {
        conditions: Some(conditions),
        container_statuses: some(app),
        init_container_statuses: some(init),
        ephemeral_container_statuses: some(ephemeral),
        host_ip: view.host_ips.first().cloned(),
        host_ips: some_ips(view.host_ips, |ip| HostIP { ip }),
        pod_ip: ips.first().cloned(),
        pod_ips: some_ips(&ips, |ip| PodIP { ip }),
        qos_class: Some(resources::qos(pod).as_str().to_owned()),
        start_time: old.start_time.clone().or(Some(Time(view.now))),
        observed_generation: pod.metadata.generation,
        reason: view.verdict.map(|v| v.0.to_owned()).or(old.reason.clone()),
        message: view.verdict.map(|v| v.1.to_owned()).or(old.message.clone()),
        phase: Some(phase),
        ..old
    }
}

fn some_ips<T>(ips: &[String], wrap: impl Fn(String) -> T) -> Option<Vec<T>> {
    (!ips.is_empty()).then(|| ips.iter().cloned().map(wrap).collect())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
