//! Whether the node takes a pod that was bound to it: not everybody asks the scheduler.

use component::events::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::worker::{Verdict, Worker};
use crate::runtime::observe;

impl Worker {
    /// Looks at a pod once, before anything is made for it. One that is refused has failed.
    pub(super) fn admit(&mut self, pod: &Pod, runtime: &observe::Pod) {
        if std::mem::replace(&mut self.admitted, true) {
            return;
        }
        // An earlier kubelet took it.
        let runs = !runtime.sandboxes.is_empty() || !runtime.containers.is_empty();
        if !self.node.ports.claim(pod, runs) {
            let why = "Predicate NodePorts failed";
            self.node.event(pod, EventType::Warning, "NodePorts", why.to_owned());
            let message = format!("Pod was rejected: {why}");
            self.verdict = Some(Verdict { reason: "NodePorts", message });
        }
    }
}
