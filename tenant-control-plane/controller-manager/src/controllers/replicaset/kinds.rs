//! The two kinds that keep a number of equal pods: ReplicaSet, and its elder ReplicationController.

use component::Object;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Serialize;

/// What such an object asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// How many.
    pub replicas: i32,
    /// How long a pod has to be ready before it is available, seconds.
    pub min_ready: i32,
    /// What they are made from.
    pub template: PodTemplateSpec,
}

/// A kind that keeps a number of equal pods.
pub trait Replicated: Object + Serialize {
    /// The kind's name.
    const KIND: &'static str;
    /// Name of the controller in events.
    const CONTROLLER: &'static str;

    /// What it asks for; nothing without a spec.
    fn wanted(&self) -> Option<Wanted>;

    /// Its status, in the fields of a ReplicaSet's.
    fn status(&self) -> ReplicaSetStatus;

    /// The same object with another status. A field that the kind lacks is left out.
    #[must_use]
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";
    const CONTROLLER: &'static str = "replicaset-controller";

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.clone()?;
        Some(Wanted {
            selector: spec.selector,
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or_default(),
            template: spec.template.unwrap_or_default(),
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const KIND: &'static str = "ReplicationController";
    const CONTROLLER: &'static str = "replication-controller";

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.clone()?;
        let selector = LabelSelector { match_labels: spec.selector, match_expressions: None };
        Some(Wanted {
            selector,
            replicas: spec.replicas.unwrap_or(1),
            min_ready: spec.min_ready_seconds.unwrap_or_default(),
            template: spec.template.unwrap_or_default(),
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|all| {
            let convert = |c: ReplicationControllerCondition| ReplicaSetCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(convert).collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions,
        }
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let conditions = status.conditions.map(|all| {
            let convert = |c: ReplicaSetCondition| ReplicationControllerCondition {
                type_: c.type_,
                status: c.status,
                reason: c.reason,
                message: c.message,
                last_transition_time: c.last_transition_time,
            };
            all.into_iter().map(convert).collect()
        });
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        };
        Self { status: Some(status), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_way_through_the_elder_kind() {
        let set = ReplicationController::default();
        let status = ReplicaSetStatus {
            replicas: 3,
            ready_replicas: Some(2),
            observed_generation: Some(7),
            conditions: Some(vec![ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                ..ReplicaSetCondition::default()
            }]),
            ..ReplicaSetStatus::default()
        };
        assert_eq!(set.with_status(status.clone()).status(), status);
    }

    #[test]
    fn a_map_selects_like_match_labels() {
        let set: ReplicationController = serde_json::from_value(serde_json::json!({
            "spec": {"selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}}}
        }))
        .unwrap();
        let wanted = set.wanted().unwrap();
        assert_eq!(wanted.replicas, 1);
        assert_eq!(wanted.selector.match_labels.unwrap()["a"], "b");
    }
}
