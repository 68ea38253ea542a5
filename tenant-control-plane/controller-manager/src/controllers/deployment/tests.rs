//! Rollouts played through on paper: each step carries out the plan and lets pods become ready.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::annotations::revision;
use super::plan::{Change, Plan, World, plan, size};

/// A Deployment and its ReplicaSets, with a clock.
struct Stage {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    with_pods: HashSet<String>,
    second: i64,
    created: usize,
}

impl Stage {
    fn new(spec: Value) -> Self {
        let mut deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
            "spec": {"replicas": 3, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}},
                "template": template("v1")}
        }))
        .unwrap();
        let mut value = serde_json::to_value(&deployment.spec).unwrap();
        value.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        deployment.spec = serde_json::from_value(value).unwrap();
        Self { deployment, sets: Vec::new(), with_pods: HashSet::new(), second: 1000, created: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    fn image(&mut self, image: &str) {
        self.deployment.spec.as_mut().unwrap().template =
            serde_json::from_value(template(image)).unwrap();
        self.bump();
    }

    fn bump(&mut self) {
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn plan(&self) -> Plan {
        plan(
            &self.deployment,
            World { sets: self.sets.clone(), with_pods: self.with_pods.clone(), now: self.now() },
        )
    }

    /// Carries out one plan. False when there was nothing to do.
    fn step(&mut self) -> bool {
        let plan = self.plan();
        let some = !plan.changes.is_empty();
        for change in plan.changes {
            match change {
                Change::Create(mut set) => {
                    set.metadata.uid = Some(format!("rs{}", self.created));
                    self.created += 1;
                    set.metadata.creation_timestamp = Some(Time(self.now()));
                    set.metadata.generation = Some(1);
                    self.sets.push(*set);
                }
                Change::Scale { set, to, annotations, .. } => {
                    let set = self.set_mut(&set.metadata.uid);
                    set.spec.as_mut().unwrap().replicas = Some(to);
                    set.metadata.annotations = Some(annotations);
                }
                Change::Annotate { set, annotations, .. } => {
                    self.set_mut(&set.metadata.uid).metadata.annotations = Some(annotations);
                }
                Change::Delete(set) => self.sets.retain(|s| s.metadata.uid != set.metadata.uid),
                Change::Revision(text) => {
                    let annotations = self.deployment.metadata.annotations.get_or_insert_default();
                    annotations.insert(super::annotations::REVISION.into(), text);
                }
                Change::Status(status) => self.deployment.status = Some(*status),
            }
        }
        self.second += 1;
        some
    }

    fn set_mut(&mut self, uid: &Option<String>) -> &mut ReplicaSet {
        self.sets.iter_mut().find(|s| s.metadata.uid == *uid).unwrap()
    }

    /// Lets every wanted pod run; those of ReplicaSet `stuck` never become available.
    fn settle(&mut self, stuck: Option<usize>) {
        for (index, set) in self.sets.iter_mut().enumerate() {
            let replicas = size(set);
            let ready = if stuck == Some(index) { 0 } else { replicas };
            set.status = serde_json::from_value(json!({
                "replicas": replicas, "readyReplicas": ready, "availableReplicas": ready,
                "observedGeneration": set.metadata.generation,
            }))
            .unwrap();
        }
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(size).collect()
    }

    fn run(&mut self, stuck: Option<usize>) -> Vec<Vec<i32>> {
        let mut history = Vec::new();
        for _ in 0..60 {
            let some = self.step();
            self.settle(stuck);
            if history.last() != Some(&self.sizes()) {
                history.push(self.sizes());
            }
            if !some {
                return history;
            }
        }
        panic!("the rollout does not settle: {history:?}");
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.deployment.status.as_ref().unwrap();
        let found = super::status::find(status, kind).unwrap();
        (found.status.clone(), found.reason.clone().unwrap())
    }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]}})
}

#[test]
fn a_new_deployment_gets_its_replica_set_and_completes() {
    let mut stage = Stage::new(json!({}));
    assert_eq!(stage.run(None), [[3]]);
    assert_eq!(stage.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(stage.condition("Available").0, "True");
    let status = stage.deployment.status.as_ref().unwrap();
    assert_eq!((status.replicas, status.updated_replicas), (Some(3), Some(3)));
    assert_eq!(status.observed_generation, Some(1));
    let name = stage.sets[0].metadata.name.as_deref().unwrap();
    let hash = &stage.sets[0].metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(name, format!("web-{hash}"));
}

#[test]
fn a_rolling_update_never_leaves_its_bounds() {
    let mut stage = Stage::new(json!({"replicas": 4}));
    stage.run(None);
    stage.image("v2");
    let history = stage.run(None);
    for sizes in &history {
        let total: i32 = sizes.iter().sum();
        assert!((3..=5).contains(&total), "{history:?}");
    }
    assert_eq!(stage.sizes(), [0, 4]);
    assert_eq!(
        stage.deployment.metadata.annotations.as_ref().unwrap()[super::annotations::REVISION],
        "2"
    );
}

#[test]
fn a_stuck_rollout_stops_and_times_out() {
    let mut stage = Stage::new(json!({}));
    stage.run(None);
    stage.image("broken");
    stage.run(Some(1));
    assert_eq!(stage.sizes(), [3, 1], "25% of 3: one more, none fewer");
    assert!(stage.plan().requeue.is_some(), "the deadline is waited for");
    stage.second += 700;
    stage.run(Some(1));
    assert_eq!(stage.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
}

#[test]
fn undo_reuses_the_old_replica_set_under_a_new_revision() {
    let mut stage = Stage::new(json!({}));
    stage.run(None);
    stage.image("v2");
    stage.run(None);
    stage.image("v1");
    stage.run(None);
    assert_eq!(stage.sizes(), [3, 0]);
    assert_eq!(stage.sets.iter().map(revision).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(
        stage.sets[0].metadata.annotations.as_ref().unwrap()[super::annotations::HISTORY],
        "1"
    );
}

#[test]
fn recreate_waits_until_the_last_old_pod_is_gone() {
    let mut stage = Stage::new(json!({"strategy": {"type": "Recreate"}}));
    stage.run(None);
    stage.with_pods.insert("rs0".into());
    stage.image("v2");
    assert_eq!(stage.run(None).last().unwrap(), &[0]);
    stage.with_pods.clear();
    assert_eq!(stage.run(None).last().unwrap(), &[0, 3]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut stage = Stage::new(json!({}));
    stage.run(None);
    stage.deployment.spec.as_mut().unwrap().paused = Some(true);
    stage.deployment.spec.as_mut().unwrap().replicas = Some(5);
    stage.image("v2");
    stage.run(None);
    assert_eq!(stage.sizes(), [5]);
    assert_eq!(stage.condition("Progressing").1, "DeploymentPaused");
    stage.deployment.spec.as_mut().unwrap().paused = None;
    stage.bump();
    stage.run(None);
    assert_eq!(stage.sizes(), [0, 5]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut stage = Stage::new(json!({"replicas": 10}));
    stage.run(None);
    stage.image("broken");
    stage.run(Some(1));
    assert_eq!(stage.sizes(), [8, 5]);
    stage.deployment.spec.as_mut().unwrap().replicas = Some(20);
    stage.bump();
    stage.step();
    let sizes = stage.sizes();
    assert_eq!(sizes.iter().sum::<i32>(), 25, "{sizes:?}");
    assert_eq!(sizes, [15, 10]);
}

#[test]
fn history_beyond_the_limit_is_deleted() {
    let mut stage = Stage::new(json!({"revisionHistoryLimit": 1}));
    for image in ["v1", "v2", "v3", "v4"] {
        stage.image(image);
        stage.run(None);
    }
    assert_eq!(stage.sets.len(), 2);
    assert_eq!(stage.sizes(), [0, 3]);
}
