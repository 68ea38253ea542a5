//! Jobs played through on paper.

use serde_json::{Value, json};

use super::*;

struct Stage {
    job: Job,
    pods: Vec<Arc<Pod>>,
    second: i64,
    made: usize,
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
            second: 1000,
            made: 0,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    /// Carries out plans until nothing is left to do at this second.
    fn settle(&mut self) {
        for _ in 0..20 {
            let plan = plan(&self.job, &World { pods: self.pods.clone(), now: self.now() });
            let same = self.job.status.as_ref() == Some(&plan.status);
            if same && plan.create.is_empty() && plan.delete.is_empty() && plan.release.is_empty() {
                return;
            }
            self.job.status = Some(plan.status);
            let gone: Vec<_> = plan.delete.iter().map(|pod| uid(pod)).collect();
            self.pods.retain(|pod| !gone.contains(&uid(pod)));
            for pod in &mut self.pods {
                if plan.release.iter().any(|released| uid(released) == uid(pod)) {
                    Arc::make_mut(pod).metadata.finalizers = None;
                }
            }
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
        let now = Time(self.now());
        Arc::make_mut(&mut self.pods[index]).status = serde_json::from_value(json!({
            "phase": phase, "containerStatuses": [{"name": "c", "ready": false, "restartCount": 0,
                "image": "", "imageID": "", "state": {"terminated": {"exitCode": 1, "finishedAt": now}}}]
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
    let waiting = plan(&stage.job, &World { pods: stage.pods.clone(), now: stage.now() });
    assert_eq!(waiting.requeue, Some(Duration::from_secs(10)));
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
