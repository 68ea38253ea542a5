//! Decides the next step of a StatefulSet, and its status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use component::workqueue::Requeue;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::identity::{ordinal, pod_for, revision_of};
use crate::controllers::replicaset::next_availability;
use crate::pods;

/// The revision that the set is leaving and the one that it is going to.
pub(super) struct Revisions {
    pub current: Arc<ControllerRevision>,
    pub update: Arc<ControllerRevision>,
}

/// What the decision rests on.
pub(super) struct World {
    /// Pods that the set controls.
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

/// One write.
#[derive(Debug)]
pub(super) enum Step {
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

/// Most writes in one pass.
const BURST: usize = 500;

/// The writes that may be made now.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Pods that cannot start: their claims may have been deleted, and are made again.
    pub waiting: Vec<Arc<Pod>>,
    pub steps: Vec<Step>,
    pub requeue: Requeue,
}

struct Shape {
    first: i32,
    replicas: i32,
    ordered: bool,
    min_ready: i32,
    /// Pods of smaller ordinals keep the current revision; `None` when updates wait for deletion.
    partition: Option<i32>,
}

impl Shape {
    fn of(set: &StatefulSet) -> Self {
        let spec = set.spec.clone().unwrap_or_default();
        let strategy = spec.update_strategy.unwrap_or_default();
        let rolling = strategy.rolling_update.unwrap_or_default();
        let on_delete = strategy.type_.as_deref() == Some("OnDelete");
        Self {
            first: spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            min_ready: spec.min_ready_seconds.unwrap_or_default(),
            partition: (!on_delete).then(|| rolling.partition.unwrap_or_default()),
        }
    }

    fn wanted(&self) -> std::ops::Range<i32> {
        self.first..self.first.saturating_add(self.replicas)
    }

    /// True when the partition keeps the ordinal at the current revision.
    fn is_kept(&self, ordinal: i32, partition: i32) -> bool {
        ordinal < self.first.saturating_add(partition)
    }
}

fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Which revision a new pod gets: the current one below the partition, while an update is under way.
fn revision_for<'a>(
    shape: &Shape,
    revisions: &'a Revisions,
    ordinal: i32,
) -> &'a ControllerRevision {
    match shape.partition {
        Some(partition) if shape.is_kept(ordinal, partition) => &revisions.current,
        _ => &revisions.update,
    }
}

/// See the module documentation.
pub(super) fn plan(set: &StatefulSet, revisions: &Revisions, world: &World) -> Steps {
    let shape = Shape::of(set);
    let by_ordinal: BTreeMap<i32, &Arc<Pod>> =
        world.pods.iter().filter_map(|pod| Some((ordinal(set, pod)?, pod))).collect();
    let serves =
        |pod: &Pod| !is_deleting(pod) && pods::is_available(pod, shape.min_ready, world.now);
    let mut result = Steps {
        waiting: Vec::new(),
        steps: Vec::new(),
        requeue: next_availability(&world.pods, shape.min_ready, world.now),
    };
    // Up: every wanted ordinal has a pod, one after the other if ordered.
    for wanted in shape.wanted() {
        let pod = by_ordinal.get(&wanted).copied();
        match pod {
            None => {
                let pod = pod_for(set, revision_for(&shape, revisions, wanted), wanted);
                result.steps.push(Step::Create(Box::new(pod)));
            }
            Some(pod) if pods::is_finished(pod) && !is_deleting(pod) => {
                result.steps.push(Step::Delete(pod.clone()));
            }
            Some(pod) if pods::phase(pod) == "Pending" && !is_deleting(pod) => {
                result.waiting.push(pod.clone());
            }
            Some(_) => {}
        }
        let is_held = shape.ordered && !pod.is_some_and(|pod| serves(pod));
        if is_held || result.steps.len() == BURST {
            return result;
        }
    }
    // Down: from the last one, one after the other if ordered.
    let surplus = || by_ordinal.iter().filter(|(ordinal, _)| !shape.wanted().contains(*ordinal));
    let first_unhealthy = surplus().find(|(_, pod)| !serves(pod)).map(|(ordinal, _)| *ordinal);
    for (ordinal, pod) in surplus().rev() {
        // A pod that does not serve holds back the ones before it, unless it is the first such.
        let is_next = !shape.ordered || serves(pod) || first_unhealthy == Some(*ordinal);
        if !is_deleting(pod) && is_next {
            result.steps.push(Step::Delete((*pod).clone()));
        }
        if shape.ordered {
            return result;
        }
    }
    if !result.steps.is_empty() {
        return result;
    }
    // Across: from the last one, the next only when this one serves in the new revision.
    let Some(partition) = shape.partition else { return result };
    let update = revisions.update.name_any();
    for (ordinal, pod) in by_ordinal.iter().rev() {
        if shape.is_kept(*ordinal, partition) {
            break;
        }
        if revision_of(pod) != Some(&update) && !is_deleting(pod) {
            result.steps.push(Step::Delete((*pod).clone()));
            break;
        }
        if !serves(pod) {
            break;
        }
    }
    result
}

/// The set's status.
pub(super) fn status(set: &StatefulSet, revisions: &Revisions, world: &World) -> StatefulSetStatus {
    let shape = Shape::of(set);
    let (current, update) = (revisions.current.name_any(), revisions.update.name_any());
    let live: Vec<_> = world.pods.iter().filter(|pod| ordinal(set, pod).is_some()).collect();
    let tally = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let of = |revision: &str| {
        tally(live.iter().filter(|p| !is_deleting(p) && revision_of(p) == Some(revision)).count())
    };
    let ready = tally(live.iter().filter(|pod| pods::is_ready(pod)).count());
    let serving =
        live.iter().filter(|pod| pods::is_available(pod, shape.min_ready, world.now)).count();
    let some = |number: i32| (number > 0).then_some(number);
    let (mut now, mut of_now) = (current.clone(), of(&current));
    let updated = of(&update);
    // The update is complete: the new revision becomes the current one.
    let done = updated == shape.replicas && ready == shape.replicas && tally(live.len()) == updated;
    if current != update && done && shape.partition.is_some() {
        (now, of_now) = (update.clone(), updated);
    }
    StatefulSetStatus {
        replicas: tally(live.len()),
        ready_replicas: some(ready),
        available_replicas: Some(tally(serving)),
        current_replicas: some(of_now),
        updated_replicas: some(updated),
        current_revision: Some(now),
        update_revision: Some(update),
        observed_generation: set.metadata.generation,
        collision_count: Some(
            set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default(),
        ),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Stage {
        set: StatefulSet,
        revisions: Revisions,
        pods: Vec<Arc<Pod>>,
    }

    fn revision(name: &str) -> Arc<ControllerRevision> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "revision": 1})).unwrap(),
        )
    }

    impl Stage {
        fn new(spec: Value) -> Self {
            let mut value = json!({
                "metadata": {"name": "db", "namespace": "ns", "uid": "s"},
                "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                    "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}}
            });
            value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let revisions = Revisions { current: revision("db-1"), update: revision("db-1") };
            Self { set: serde_json::from_value(value).unwrap(), revisions, pods: Vec::new() }
        }

        fn world(&self) -> World {
            World { pods: self.pods.clone(), now: Timestamp::now() }
        }

        /// Carries out one plan; returns what it did, as `+name` and `-name`.
        fn step(&mut self) -> Vec<String> {
            let plan = plan(&self.set, &self.revisions, &self.world());
            let mut done = Vec::new();
            for step in plan.steps {
                match step {
                    Step::Create(pod) => {
                        done.push(format!("+{}", pod.name_any()));
                        self.pods.push(Arc::new(*pod));
                    }
                    Step::Delete(pod) => {
                        done.push(format!("-{}", pod.name_any()));
                        self.pods.retain(|other| other.name_any() != pod.name_any());
                    }
                }
            }
            done
        }

        fn ready(&mut self) {
            for pod in &mut self.pods {
                Arc::make_mut(pod).status = serde_json::from_value(json!({"phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True"}]}))
                .unwrap();
            }
        }

        fn run(&mut self) -> Vec<String> {
            let mut all = Vec::new();
            loop {
                let done = self.step();
                if done.is_empty() {
                    return all;
                }
                all.extend(done);
                self.ready();
            }
        }
    }

    #[test]
    fn pods_start_and_stop_in_order() {
        let mut stage = Stage::new(json!({}));
        assert_eq!(stage.step(), ["+db-0"]);
        assert!(stage.step().is_empty(), "the first must serve before the second starts");
        stage.ready();
        assert_eq!(stage.run(), ["+db-1", "+db-2"]);
        stage.set.spec.as_mut().unwrap().replicas = Some(1);
        assert_eq!(stage.step(), ["-db-2"]);
        assert_eq!(stage.step(), ["-db-1"]);
        let mut parallel =
            Stage::new(json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
        assert_eq!(parallel.step(), ["+db-5", "+db-6", "+db-7"]);
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let spec = json!({"podManagementPolicy": "Parallel", "replicas": i32::MAX,
            "ordinals": {"start": 3}, "updateStrategy": {"rollingUpdate": {"partition": i32::MAX}}});
        let mut stage = Stage::new(spec);
        assert_eq!(stage.step().len(), BURST);
        stage.ready();
        assert_eq!(stage.step()[0], format!("+db-{}", 3 + BURST));
    }

    #[test]
    fn the_claims_of_a_pod_that_cannot_start_are_looked_at() {
        let mut stage = Stage::new(json!({}));
        stage.step();
        let waiting =
            |stage: &Stage| plan(&stage.set, &stage.revisions, &stage.world()).waiting.len();
        assert_eq!(waiting(&stage), 0, "nobody has seen the pod yet");
        Arc::make_mut(&mut stage.pods[0]).status =
            serde_json::from_value(json!({"phase": "Pending"})).unwrap();
        assert_eq!(waiting(&stage), 1);
        stage.ready();
        assert_eq!(waiting(&stage), 0);
    }

    #[test]
    fn scaling_down_halts_at_pods_that_do_not_serve() {
        let fail = |stage: &mut Stage, ordinals: &[usize]| {
            for ordinal in ordinals {
                Arc::make_mut(&mut stage.pods[*ordinal]).status = None;
            }
        };
        let mut stage = Stage::new(json!({}));
        stage.run();
        stage.set.spec.as_mut().unwrap().replicas = Some(0);
        fail(&mut stage, &[0, 1, 2]);
        assert!(stage.step().is_empty(), "the first must serve before the last stops");
        stage.ready();
        fail(&mut stage, &[2]);
        assert_eq!(stage.step(), ["-db-2"]);
        fail(&mut stage, &[0]);
        assert_eq!(stage.step(), ["-db-1"]);
        assert_eq!(stage.step(), ["-db-0"]);
        let mut parallel = Stage::new(json!({"podManagementPolicy": "Parallel"}));
        parallel.run();
        fail(&mut parallel, &[0, 1, 2]);
        parallel.set.spec.as_mut().unwrap().replicas = Some(0);
        assert_eq!(parallel.step(), ["-db-2", "-db-1", "-db-0"]);
    }

    #[test]
    fn an_update_goes_from_the_last_to_the_partition() {
        let mut stage = Stage::new(json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}));
        stage.run();
        stage.revisions.update = revision("db-2");
        assert_eq!(stage.run(), ["-db-2", "+db-2", "-db-1", "+db-1"]);
        let midway = status(&stage.set, &stage.revisions, &stage.world());
        assert_eq!((midway.current_replicas, midway.updated_replicas), (Some(1), Some(2)));
        assert_eq!(midway.current_revision.as_deref(), Some("db-1"));
        stage.set.spec.as_mut().unwrap().update_strategy = None;
        assert_eq!(stage.run(), ["-db-0", "+db-0"]);
        let done = status(&stage.set, &stage.revisions, &stage.world());
        assert_eq!(done.current_revision.as_deref(), Some("db-2"));
        assert_eq!(done.current_replicas, Some(3));
    }

    #[test]
    fn each_pod_has_its_name_and_its_storage() {
        let stage = Stage::new(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}));
        let pod = pod_for(&stage.set, &stage.revisions.update, 2);
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("db-2"));
        assert_eq!(spec.subdomain.as_deref(), Some("db"));
        let source = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(source.claim_name, "data-db-2");
        let claims = super::super::identity::claims(&stage.set, &pod);
        assert_eq!(claims[0].name_any(), "data-db-2");
        assert_eq!(ordinal(&stage.set, &pod), Some(2));
    }
}
