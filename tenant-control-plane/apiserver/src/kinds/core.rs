//! The core group.

use super::row::{Action, Review, Rows, Verbs, cluster, namespaced};
use crate::strategy;

const CONNECT: Verbs = Verbs::CREATE.and(Verbs::GET);
const PROXY: Verbs = Verbs::CREATE.and(Verbs::DELETE).and(Verbs::STATUS);
const READ: Verbs = Verbs::GET.and(Verbs::LIST);

pub(super) fn rows() -> Rows {
    Rows::of(
        "",
        "v1",
        [storage_and_config(), cluster_kinds(), workloads()].into_iter().flatten().collect(),
    )
}

fn storage_and_config() -> Vec<super::row::RowBuilder> {
    vec![
        namespaced("ConfigMap", "configmaps")
            .short(&["cm"])
            .strategy(strategy::config::config_map()),
        namespaced("Secret", "secrets").field("type", "/type").strategy(strategy::config::secret()),
        namespaced("LimitRange", "limitranges").short(&["limits"]),
        namespaced("ResourceQuota", "resourcequotas").short(&["quota"]).status(),
        namespaced("PersistentVolumeClaim", "persistentvolumeclaims")
            .short(&["pvc"])
            .status()
            .strategy(strategy::volumes::claim()),
        cluster("PersistentVolume", "persistentvolumes")
            .short(&["pv"])
            .status()
            .strategy(strategy::volumes::volume()),
        namespaced("ServiceAccount", "serviceaccounts").short(&["sa"]).sub(
            "token",
            Action::Token,
            Some(("authentication.k8s.io", "v1")),
            "TokenRequest".into(),
            Verbs::CREATE,
        ),
        namespaced("Event", "events")
            .short(&["ev"])
            .field("involvedObject.kind", "/involvedObject/kind")
            .field("involvedObject.namespace", "/involvedObject/namespace")
            .field("involvedObject.name", "/involvedObject/name")
            .field("involvedObject.uid", "/involvedObject/uid")
            .field("involvedObject.apiVersion", "/involvedObject/apiVersion")
            .field("involvedObject.resourceVersion", "/involvedObject/resourceVersion")
            .field("involvedObject.fieldPath", "/involvedObject/fieldPath")
            .field("reason", "/reason")
            .field("reportingComponent", "/reportingComponent")
            .field("source", "/source/component|/reportingComponent")
            .field("type", "/type")
            .strategy(strategy::events::event()),
    ]
}

fn cluster_kinds() -> Vec<super::row::RowBuilder> {
    vec![
        cluster("Namespace", "namespaces")
            .short(&["ns"])
            .verbs(Verbs::ALL.but(Verbs::DELETE_COLLECTION))
            .status()
            .sub("finalize", Action::Finalize, None, "Namespace".into(), Verbs::UPDATE)
            .field("status.phase", "/status/phase")
            .field("name", "/metadata/name")
            .strategy(strategy::namespace::namespace()),
        cluster("Node", "nodes")
            .short(&["no"])
            .status()
            .sub("proxy", Action::Proxy, None, "NodeProxyOptions".into(), PROXY)
            .field_or("spec.unschedulable", "/spec/unschedulable", "false")
            .strategy(strategy::node::node()),
        cluster("ComponentStatus", "componentstatuses")
            .short(&["cs"])
            .review(Review::ComponentStatus)
            .verbs(READ),
        namespaced("Binding", "bindings").review(Review::Binding),
    ]
}

fn workloads() -> Vec<super::row::RowBuilder> {
    vec![
        pods(),
        namespaced("PodTemplate", "podtemplates").strategy(strategy::workload::template()),
        namespaced("ReplicationController", "replicationcontrollers")
            .short(&["rc"])
            .in_all()
            .status()
            .scale()
            .field_or("status.replicas", "/status/replicas", "0")
            .strategy(strategy::workload::replication_controller()),
        namespaced("Service", "services")
            .short(&["svc"])
            .in_all()
            .status()
            .sub("proxy", Action::Proxy, None, "ServiceProxyOptions".into(), PROXY)
            .field("spec.clusterIP", "/spec/clusterIP")
            .field("spec.type", "/spec/type")
            .strategy(strategy::service::service()),
        namespaced("Endpoints", "endpoints")
            .short(&["ep"])
            .strategy(strategy::service::endpoints()),
    ]
}

fn pods() -> super::row::RowBuilder {
    let pod = "Pod";
    namespaced(pod, "pods")
        .short(&["po"])
        .in_all()
        .status()
        .sub("attach", Action::Attach, None, "PodAttachOptions".into(), CONNECT)
        .sub("binding", Action::Binding, None, "Binding".into(), Verbs::CREATE)
        .sub("ephemeralcontainers", Action::EphemeralContainers, None, pod.into(), Verbs::STATUS)
        .sub("eviction", Action::Eviction, Some(("policy", "v1")), "Eviction".into(), Verbs::CREATE)
        .sub("exec", Action::Exec, None, "PodExecOptions".into(), CONNECT)
        .sub("log", Action::Log, None, pod.into(), Verbs::GET)
        .sub("portforward", Action::PortForward, None, "PodPortForwardOptions".into(), CONNECT)
        .sub("proxy", Action::Proxy, None, "PodProxyOptions".into(), PROXY)
        .sub("resize", Action::Resize, None, pod.into(), Verbs::STATUS)
        .field("spec.nodeName", "/spec/nodeName")
        .field("spec.restartPolicy", "/spec/restartPolicy")
        .field("spec.schedulerName", "/spec/schedulerName")
        .field("spec.serviceAccountName", "/spec/serviceAccountName")
        .field_or("spec.hostNetwork", "/spec/hostNetwork", "false")
        .field("status.phase", "/status/phase")
        .field("status.podIP", "/status/podIP")
        .field("status.nominatedNodeName", "/status/nominatedNodeName")
        .strategy(strategy::pod::pod())
}
