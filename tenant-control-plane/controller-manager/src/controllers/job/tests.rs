//! Jobs played through on paper.

use serde_json::{Value, json};

use super::*;

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

struct Stage {
    job: Job,
    pods: Vec<Arc<Pod>>,
    dropped: HashSet<String>,
    second: i64,
    made: usize,
    /// Pods that are being deleted stay until they are told to go.
    linger: bool,
}

impl Stage {
    fn new(spec: Value) -> Self {
        let mut value = json!({
            "metadata": {"name": "sum", "namespace": "ns", "uid": "j"},
            "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {},
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}
        });
        value["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Self {
            job: serde_json::from_value(value).unwrap(),
            pods: Vec::new(),
            dropped: HashSet::new(),
            second: 1000,
            made: 0,
            linger: false,
        }
    }

    fn plan(&self) -> Plan {
        let (pods, dropped) = (self.pods.clone(), self.dropped.clone());
        plan(&self.job, &World { pods, dropped, now: self.now() })
    }

    /// What the API server does to a pod that someone deletes.
    fn delete(&mut self, pod: &Pod) {
        let end = Timestamp::from_second(self.second + 30).unwrap();
        let pod = self.pods.iter_mut().find(|known| uid(known) == uid(pod)).unwrap();
        let meta = &mut Arc::make_mut(pod).metadata;
        meta.deletion_timestamp = Some(Time(end));
        meta.deletion_grace_period_seconds = Some(30);
    }

    fn release(&mut self, released: &[Arc<Pod>]) {
        for pod in &mut self.pods {
            if released.iter().any(|released| uid(released) == uid(pod)) {
                Arc::make_mut(pod).metadata.finalizers = None;
            }
        }
    }

    /// The containers of deleted pods have stopped: the pods go unless a finalizer holds them.
    fn reap(&mut self) -> bool {
        let before = self.pods.len();
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() || has_finalizer(pod));
        self.pods.len() < before
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    /// Carries out plans until nothing is left to do at this second.
    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = self.plan();
            let status = plan.status_with(plan.create.len());
            let same = self.job.status.as_ref() == Some(&status);
            let idle = [&plan.drop, &plan.delete, &plan.release].iter().all(|list| list.is_empty());
            if same && idle && plan.create.is_empty() {
                if self.linger || !self.reap() {
                    return;
                }
                continue;
            }
            self.job.status = Some(status);
            self.dropped.extend(plan.drop.iter().map(|pod| uid(pod)));
            self.release(&plan.drop);
            plan.drop.iter().chain(&plan.delete).for_each(|pod| self.delete(pod));
            self.release(&plan.release);
            for mut pod in plan.create {
                pod.metadata.uid = Some(format!("p{}", self.made));
                pod.metadata.creation_timestamp = Some(Time(self.now()));
                self.made += 1;
                self.pods.push(Arc::new(pod));
            }
        }
        panic!("the Job does not settle: {:?}", self.job.status);
    }

    fn end(&mut self, index: usize, phase: &str) {
        let code = i32::from(phase == "Failed");
        self.end_with(index, phase, code);
    }

    fn end_with(&mut self, index: usize, phase: &str, code: i32) {
        let now = Time(self.now());
        Arc::make_mut(&mut self.pods[index]).status = serde_json::from_value(json!({
            "phase": phase, "containerStatuses": [{"name": "c", "ready": false, "restartCount": 0,
                "image": "", "imageID": "", "state": {"terminated": {"exitCode": code, "finishedAt": now}}}]
        }))
        .unwrap();
        self.settle();
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().unwrap()
    }

    fn running(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_active(pod)).count()
    }

    fn reason(&self, kind: &str) -> Option<String> {
        let conditions = self.status().conditions.iter().flatten();
        conditions.into_iter().find(|c| c.type_ == kind && c.status == "True")?.reason.clone()
    }
}

#[test]
fn a_job_runs_its_completions_in_parallel_and_completes() {
    let mut stage = Stage::new(json!({"parallelism": 2, "completions": 3}));
    stage.settle();
    assert_eq!(stage.running(), 2);
    assert_eq!(stage.status().active, Some(2));
    stage.end(0, "Succeeded");
    assert_eq!(stage.running(), 2);
    stage.end(1, "Succeeded");
    assert_eq!(stage.running(), 1);
    stage.end(2, "Succeeded");
    assert_eq!(stage.status().succeeded, Some(3));
    assert_eq!(stage.reason("Complete").as_deref(), Some("CompletionsReached"));
    assert!(stage.status().completion_time.is_some());
    assert!(stage.pods.iter().all(|pod| !has_finalizer(pod)));
}

#[test]
fn a_result_is_counted_once_even_if_the_pod_is_deleted() {
    let mut stage = Stage::new(json!({"completions": 2}));
    stage.settle();
    stage.end(0, "Succeeded");
    stage.pods.remove(0);
    stage.settle();
    assert_eq!(stage.status().succeeded, Some(1));
    assert_eq!(stage.running(), 1);
}

#[test]
fn failures_back_off_and_end_at_the_limit() {
    let mut stage = Stage::new(json!({"backoffLimit": 1}));
    stage.settle();
    stage.end(0, "Failed");
    assert_eq!(stage.running(), 0);
    assert_eq!(stage.plan().requeue, Some(Duration::from_secs(10)));
    stage.second += 10;
    stage.settle();
    assert_eq!(stage.running(), 1);
    stage.end(1, "Failed");
    assert_eq!(stage.reason("Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(stage.status().failed, Some(2));
}

#[test]
fn the_deadline_ends_a_job_and_its_pods() {
    let mut stage = Stage::new(json!({"activeDeadlineSeconds": 30}));
    stage.settle();
    stage.second += 31;
    stage.settle();
    assert_eq!(stage.running(), 0);
    assert_eq!(stage.reason("Failed").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn an_indexed_job_runs_each_index_until_it_succeeds() {
    let mut stage =
        Stage::new(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
    stage.settle();
    let indexes: Vec<_> = stage.pods.iter().map(|pod| index_of(pod).unwrap()).collect();
    assert_eq!(indexes, [0, 1, 2]);
    stage.end(0, "Succeeded");
    stage.end(2, "Failed");
    assert_eq!(stage.status().completed_indexes.as_deref(), Some("0"));
    stage.second += 60;
    stage.settle();
    assert_eq!(index_of(stage.pods.last().unwrap()), Some(2));
    stage.end(1, "Succeeded");
    stage.end(3, "Succeeded");
    assert_eq!(stage.status().completed_indexes.as_deref(), Some("0-2"));
    assert!(stage.reason("Complete").is_some());
}

#[test]
fn a_suspended_job_has_no_pods_and_resumes() {
    let mut stage = Stage::new(json!({"suspend": true}));
    stage.settle();
    assert_eq!(stage.running(), 0);
    assert_eq!(stage.reason("Suspended").as_deref(), Some("JobSuspended"));
    assert!(stage.status().start_time.is_none());
    stage.job.spec.as_mut().unwrap().suspend = Some(false);
    stage.settle();
    assert_eq!(stage.running(), 1);
    assert!(stage.status().start_time.is_some());
}

#[test]
fn pods_that_are_not_wanted_any_more_have_not_failed() {
    let mut stage = Stage::new(json!({"parallelism": 3, "completions": 9, "backoffLimit": 0}));
    stage.linger = true;
    stage.settle();
    stage.job.spec.as_mut().unwrap().suspend = Some(true);
    stage.settle();
    assert_eq!((stage.status().active, stage.status().failed), (None, None));
    assert_eq!(stage.status().terminating, Some(3));
    assert!(stage.pods.iter().all(|pod| !has_finalizer(pod)));
    // Nor do they hold back the pods that come after them.
    stage.job.spec.as_mut().unwrap().suspend = Some(false);
    stage.settle();
    assert_eq!((stage.running(), stage.status().terminating), (3, Some(3)));
    stage.job.spec.as_mut().unwrap().parallelism = Some(1);
    stage.settle();
    stage.reap();
    stage.settle();
    assert_eq!((stage.running(), stage.status().failed), (1, None));
    assert!(stage.reason("Failed").is_none());
}

#[test]
fn only_pods_that_could_be_made_are_active() {
    let stage = Stage::new(json!({"parallelism": 3, "completions": 3}));
    let plan = stage.plan();
    assert_eq!(plan.create.len(), 3);
    let active = |made| plan.status_with(made).active;
    assert_eq!((active(0), active(2), active(3)), (None, Some(2), Some(3)));
}

#[test]
fn results_are_noted_in_portions() {
    for mode in ["NonIndexed", "Indexed"] {
        let many = i32::try_from(BURST).unwrap() + 1;
        let mut stage =
            Stage::new(json!({"parallelism": many, "completions": many, "completionMode": mode}));
        stage.settle();
        for pod in &mut stage.pods {
            let status = json!({"phase": "Succeeded"});
            Arc::make_mut(pod).status = serde_json::from_value(status).unwrap();
        }
        assert_eq!(stage.plan().release.len(), BURST);
        assert!(stage.plan().status.completion_time.is_none());
        stage.settle();
        assert_eq!(stage.status().succeeded, Some(many));
        assert!(stage.reason("Complete").is_some());
        assert!(stage.pods.iter().all(|pod| !has_finalizer(pod)));
    }
}

#[test]
fn a_deadline_may_be_as_late_as_can_be() {
    let mut stage = Stage::new(json!({"activeDeadlineSeconds": i64::MAX}));
    stage.settle();
    assert!(stage.plan().requeue.is_some_and(|wait| wait > Duration::from_secs(1 << 40)));
}

#[test]
fn each_index_has_a_limit_of_its_own() {
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1});
    let mut stage = Stage::new(spec);
    stage.settle();
    let failures =
        |pod: &Pod| pod.metadata.annotations.as_ref().unwrap()[outcome::FAILURES].clone();
    assert_eq!(failures(&stage.pods[1]), "0");
    stage.end(1, "Failed");
    // Its failure is known from the pod until there is another.
    assert!(has_finalizer(&stage.pods[1]));
    assert_eq!(stage.running(), 1);
    stage.end(0, "Succeeded");
    stage.second += 10;
    stage.settle();
    assert!(!has_finalizer(&stage.pods[1]));
    assert_eq!((index_of(&stage.pods[2]), failures(&stage.pods[2]).as_str()), (Some(1), "1"));
    stage.end(2, "Failed");
    assert_eq!(stage.status().failed_indexes.as_deref(), Some("1"));
    assert_eq!(stage.status().completed_indexes.as_deref(), Some("0"));
    assert_eq!(stage.reason("Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!(stage.status().failed, Some(2));
    assert!(stage.pods.iter().all(|pod| !has_finalizer(pod)));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "backoffLimit": i32::MAX,
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 0});
    let mut stage = Stage::new(spec);
    stage.settle();
    stage.end(0, "Failed");
    assert_eq!(stage.reason("Failed").as_deref(), Some("MaxFailedIndexesExceeded"));
    assert_eq!((stage.status().failed, stage.made), (Some(1), 1));
    assert_eq!(stage.status().failed_indexes.as_deref(), Some("0"));
}

#[test]
fn the_failure_policy_fails_jobs_and_indexes_and_ignores() {
    let rules = |rules: Value| json!({"podFailurePolicy": {"rules": rules}});
    let on = |action: &str| json!([{"action": action, "onExitCodes": {"operator": "In", "values": [1]}}]);
    let mut stage = Stage::new(rules(on("FailJob")));
    stage.settle();
    stage.end(0, "Failed");
    assert_eq!(stage.reason("Failed").as_deref(), Some("PodFailurePolicy"));

    let mut spec = rules(on("Ignore"));
    spec["backoffLimit"] = 0.into();
    let mut stage = Stage::new(spec);
    stage.settle();
    stage.end(0, "Failed");
    stage.second += 10;
    stage.settle();
    assert_eq!((stage.running(), stage.status().failed), (1, None));
    stage.end(1, "Succeeded");
    assert_eq!(stage.reason("Complete").as_deref(), Some("CompletionsReached"));

    let mut spec = rules(on("FailIndex"));
    spec["completionMode"] = "Indexed".into();
    spec["backoffLimitPerIndex"] = 3.into();
    let mut stage = Stage::new(spec);
    stage.settle();
    stage.end(0, "Failed");
    assert_eq!(stage.reason("Failed").as_deref(), Some("FailedIndexes"));
}

#[test]
fn the_success_policy_ends_a_job_early() {
    let mut stage = Stage::new(json!({"completionMode": "Indexed", "completions": 5,
        "parallelism": 3, "successPolicy": {"rules": [{"succeededIndexes": "1"}]}}));
    stage.settle();
    assert_eq!(stage.running(), 3);
    stage.end(1, "Succeeded");
    assert_eq!(stage.reason("SuccessCriteriaMet").as_deref(), Some("SuccessPolicy"));
    assert_eq!(stage.reason("Complete").as_deref(), Some("SuccessPolicy"));
    assert_eq!(stage.status().completed_indexes.as_deref(), Some("1"));
    assert_eq!((stage.status().active, stage.status().succeeded), (None, Some(1)));
}

#[test]
fn the_replacement_policy_decides_when_a_deleted_pod_is_replaced() {
    for (policy, replaced) in [("TerminatingOrFailed", true), ("Failed", false)] {
        let mut stage = Stage::new(json!({"podReplacementPolicy": policy}));
        stage.linger = true;
        stage.settle();
        stage.delete(&stage.pods[0].clone());
        stage.second += 10;
        stage.settle();
        let status = stage.status();
        assert_eq!(status.terminating, Some(1));
        assert_eq!(
            (status.active, status.failed),
            if replaced { (Some(1), Some(1)) } else { (None, None) }
        );
        stage.end(0, "Failed");
        stage.second += 20;
        stage.settle();
        assert_eq!((stage.status().active, stage.status().failed), (Some(1), Some(1)));
    }
}

#[test]
fn a_success_ends_the_back_off() {
    let mut stage = Stage::new(json!({"completions": 5, "parallelism": 2}));
    stage.settle();
    stage.end(0, "Failed");
    assert_eq!(stage.running(), 1);
    stage.second += 1;
    stage.end(1, "Succeeded");
    assert_eq!(stage.running(), 2);
}
