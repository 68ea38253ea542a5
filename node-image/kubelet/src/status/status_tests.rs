use serde_json::json;

use super::*;
use crate::runtime::observe::State;

fn container(name: &str, attempt: u32, state: State, exit_code: i32) -> observe::Container {
    observe::Container {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        state,
        started_at: Some(Timestamp::UNIX_EPOCH),
        exit_code,
        image: "img:1".into(),
        image_ref: "sha256:1".into(),
        ..Default::default()
    }
}

struct World {
    pod: Pod,
    runtime: observe::Pod,
    health: Health,
    waiting: BTreeMap<String, Waiting>,
    over: bool,
    standing: Vec<conditions::Standing>,
}

impl World {
    fn new(spec: serde_json::Value, list: Vec<observe::Container>) -> Self {
        let sandbox = observe::Sandbox {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created_at: Timestamp::UNIX_EPOCH,
            ips: vec!["10.244.0.5".into()],
        };
        Self {
            pod: serde_json::from_value(
                json!({"metadata": {"name": "p", "generation": 3}, "spec": spec}),
            )
            .unwrap(),
            runtime: observe::Pod { sandboxes: vec![sandbox], containers: list },
            health: Health::default(),
            waiting: BTreeMap::new(),
            over: false,
            standing: vec![],
        }
    }

    fn status(&self) -> PodStatus {
        build(&View {
            pod: &self.pod,
            runtime: &self.runtime,
            health: &self.health,
            waiting: &self.waiting,
            messages: &HashMap::new(),
            runtime_name: "containerd",
            host_ips: &["10.0.1.5".into()],
            over: self.over,
            verdict: None,
            standing: &self.standing,
            now: Timestamp::from_second(1000).unwrap(),
        })
    }

    fn condition(&self, kind: &str) -> (String, Option<String>) {
        let found =
            self.status().conditions.unwrap().into_iter().find(|c| c.type_ == kind).unwrap();
        (found.status, found.reason)
    }
}

#[test]
fn a_running_pod() {
    let world = World::new(
        json!({"containers": [{"name": "a"}]}),
        vec![container("a", 2, State::Running, 0)],
    );
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.5"));
    assert_eq!(
        (status.qos_class.as_deref(), status.observed_generation),
        (Some("BestEffort"), Some(3))
    );
    let a = &status.container_statuses.unwrap()[0];
    assert!(
        a.ready && a.restart_count == 2 && a.container_id.as_deref() == Some("containerd://a2")
    );
    assert_eq!(world.condition("Ready").0, "True");
}

#[test]
fn a_pod_before_its_first_container() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}), vec![]);
    let why = Waiting { reason: "ImagePullBackOff", message: "Back-off pulling image".into() };
    world.waiting.insert("a".into(), why);
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let state = status.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(state.reason.as_deref(), Some("ImagePullBackOff"));
    assert_eq!(world.condition("Ready"), ("False".into(), Some("ContainersNotReady".into())));
}

#[test]
fn crash_loop_keeps_the_last_state() {
    let mut world = World::new(
        json!({"containers": [{"name": "a"}]}),
        vec![container("a", 1, State::Exited, 3)],
    );
    world
        .waiting
        .insert("a".into(), Waiting { reason: "CrashLoopBackOff", message: "back-off".into() });
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let a = &status.container_statuses.unwrap()[0];
    assert_eq!(
        a.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(),
        Some("CrashLoopBackOff")
    );
    assert_eq!(a.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    assert_eq!(a.restart_count, 1);
}

#[test]
fn init_containers_and_phases() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let world = World::new(spec("Always"), vec![container("i", 0, State::Running, 0)]);
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let a = status.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(a.waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
    assert_eq!(world.condition("Initialized").0, "False");
    let failed = World::new(spec("Never"), vec![container("i", 0, State::Exited, 1)]);
    assert_eq!(failed.status().phase.as_deref(), Some("Failed"));
    let retried = World::new(spec("Always"), vec![container("i", 0, State::Exited, 1)]);
    assert_eq!(retried.status().phase.as_deref(), Some("Pending"));
    let through = World::new(
        spec("Always"),
        vec![container("a", 0, State::Running, 0), container("i", 0, State::Exited, 0)],
    );
    assert_eq!(through.status().phase.as_deref(), Some("Running"));
    assert_eq!(through.condition("Initialized").0, "True");
}

#[test]
fn final_phases() {
    for (policy, code, over, phase) in [
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
        ("OnFailure", 1, false, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("Always", 0, false, "Running"),
        ("Always", 0, true, "Succeeded"),
        ("Always", 137, true, "Failed"),
    ] {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let mut world = World::new(spec, vec![container("a", 0, State::Exited, code)]);
        world.over = over;
        assert_eq!(world.status().phase.as_deref(), Some(phase), "{policy} {code} {over}");
    }
}

#[test]
fn foreign_conditions_and_times_are_kept() {
    let mut world = World::new(
        json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]}),
        vec![container("a", 0, State::Running, 0)],
    );
    world.pod.status = serde_json::from_value(json!({"conditions": [
        {"type": "x/y", "status": "False"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2020-01-01T00:00:05Z"}]}))
    .unwrap();
    let status = world.status();
    let get =
        |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().clone();
    assert_eq!(get("x/y").status, "False");
    assert_eq!(get("Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(
        get("ContainersReady").last_transition_time.unwrap().0.to_string(),
        "2020-01-01T00:00:05Z"
    );
    assert_eq!(
        get("PodScheduled").last_transition_time.unwrap().0.to_string(),
        "2020-01-01T00:00:00Z"
    );
}

#[test]
fn a_resize_shows() {
    let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "20m"}}}]});
    let mut world = World::new(spec, vec![container("a", 0, State::Running, 0)]);
    world.standing.push(conditions::Standing {
        kind: conditions::RESIZE_IN_PROGRESS,
        reason: "",
        message: String::new(),
        generation: Some(2),
    });
    assert_eq!(world.condition("PodResizeInProgress"), ("True".into(), None));
    let status = world.status();
    let a = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(a.allocated_resources.as_ref().unwrap()["cpu"].0, "20m");
    assert_eq!(a.resources.as_ref().unwrap().requests, a.allocated_resources);
    // What the API has of an earlier resize goes when it is over.
    world.pod.status = Some(status);
    world.standing.clear();
    let kinds = world.status().conditions.unwrap().into_iter().map(|c| c.type_);
    assert!(!kinds.collect::<Vec<_>>().contains(&"PodResizeInProgress".to_owned()));
}
