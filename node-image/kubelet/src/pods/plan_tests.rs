use serde_json::json;

use super::*;

struct World {
    pod: Pod,
    runtime: observe::Pod,
    health: Health,
    delays: HashMap<String, Delay>,
    told: HashMap<String, Settings>,
    restarting: HashSet<String>,
    now: Timestamp,
    instant: Instant,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        let sandbox = observe::Sandbox {
            id: "s0".into(),
            attempt: 0,
            ready: true,
            created_at: Timestamp::UNIX_EPOCH,
            ips: vec!["1.2.3.4".into()],
        };
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            runtime: observe::Pod { sandboxes: vec![sandbox], containers: vec![] },
            health: Health::default(),
            delays: HashMap::new(),
            told: HashMap::new(),
            restarting: HashSet::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            instant: Instant::now() + Duration::from_secs(10_000),
        }
    }

    fn add(&mut self, name: &str, state: State, exit_code: i32) -> &mut observe::Container {
        let attempt = self.runtime.named(name).count() as u32;
        let spec = containers::find(&self.pod, name).unwrap().1;
        let resources = Some(Settings::of(&spec).linux());
        let container = observe::Container {
            id: format!("{name}{attempt}"),
            sandbox_id: "s0".into(),
            name: name.into(),
            attempt,
            state,
            created_at: self.now,
            started_at: Some(self.now),
            finished_at: (state == State::Exited).then_some(self.now),
            exit_code,
            resources,
            ..Default::default()
        };
        self.runtime.containers.insert(0, container);
        &mut self.runtime.containers[0]
    }

    fn plan(&self) -> Plan {
        plan(Inputs {
            pod: &self.pod,
            runtime: &self.runtime,
            health: &self.health,
            delays: &self.delays,
            told: &self.told,
            restarting: &self.restarting,
            now: self.now,
            instant: self.instant,
        })
    }

    fn starts(&self) -> Vec<String> {
        self.plan().start.into_iter().map(|s| format!("{}#{}", s.name, s.attempt)).collect()
    }
}

#[test]
fn a_new_pod_gets_a_sandbox_and_then_its_containers() {
    let mut world = World::new(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let sandbox = world.runtime.sandboxes.pop().unwrap();
    assert_eq!(world.plan(), Plan { new_sandbox: Some(0), ..Plan::default() });
    world.runtime.sandboxes.push(sandbox);
    assert_eq!(world.starts(), ["a#0", "b#0"]);
    world.add("a", State::Running, 0);
    world.add("b", State::Running, 0);
    assert!(world.plan().is_idle());
}

#[test]
fn a_sandbox_that_died_is_replaced() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.add("a", State::Running, 0);
    world.runtime.sandboxes[0].ready = false;
    assert_eq!(world.plan().new_sandbox, Some(1));
    world.runtime.sandboxes[0].ready = true;
    world.runtime.sandboxes[0].ips.clear();
    assert_eq!(world.plan().new_sandbox, Some(1));
}

#[test]
fn init_containers_run_in_order_and_once() {
    let mut world = World::new(
        json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}),
    );
    assert_eq!(world.starts(), ["i#0"]);
    world.add("i", State::Running, 0);
    assert!(world.plan().is_idle());
    world.runtime.containers[0].state = State::Exited;
    assert_eq!(world.starts(), ["j#0"]);
    world.add("j", State::Exited, 0);
    assert_eq!(world.starts(), ["a#0"]);
    world.add("a", State::Exited, 1);
    // The init containers' records may be gone by now: they are not repeated.
    world.runtime.containers.retain(|c| c.name == "a");
    assert_eq!(world.starts(), ["a#1"]);
}

#[test]
fn a_failed_init_container_is_repeated_unless_never() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let mut world = World::new(spec("Always"));
    world.add("i", State::Exited, 1);
    assert_eq!(world.starts(), ["i#1"]);
    let mut world = World::new(spec("Never"));
    world.add("i", State::Exited, 1);
    assert!(world.plan().finished);
}

#[test]
fn sidecars_start_before_the_next_and_stay() {
    let mut world = World::new(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}], "containers": [{"name": "a"}]}));
    assert_eq!(world.starts(), ["s#0"]);
    world.add("s", State::Running, 0);
    world.health.started.insert("s0".into(), false);
    assert!(world.plan().is_idle(), "waits for the startup probe");
    world.health.started.insert("s0".into(), true);
    assert_eq!(world.starts(), ["i#0"]);
    world.add("i", State::Exited, 0);
    assert_eq!(world.starts(), ["a#0"]);
    world.add("a", State::Running, 0);
    world.add("s", State::Exited, 0);
    assert_eq!(world.starts(), ["s#2"], "a sidecar restarts even when the pod's policy is Never");
    world.runtime.containers.retain(|c| c.name != "a");
    world.add("a", State::Exited, 0);
    assert!(world.plan().finished);
}

#[test]
fn restart_policies_decide_when_a_pod_is_finished() {
    for (policy, code, finished) in
        [("Always", 0, false), ("OnFailure", 0, true), ("OnFailure", 1, false), ("Never", 1, true)]
    {
        let mut world = World::new(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        world.add("a", State::Exited, code);
        assert_eq!(world.plan().finished, finished, "{policy} {code}");
        world.runtime.sandboxes[0].ready = false;
        assert_eq!(world.plan().finished, finished, "{policy} {code}, sandbox gone");
    }
}

#[test]
fn crashes_are_backed_off() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.add("a", State::Exited, 1);
    assert_eq!(world.starts(), ["a#1"], "the first restart is at once");
    let mut delay = Delay::default();
    delay.bump(world.instant);
    world.delays.insert("a".into(), delay);
    let plan = world.plan();
    assert!(plan.start.is_empty());
    assert_eq!(plan.wake_at, Some(world.instant + Duration::from_secs(10)));
    assert_eq!(plan.waiting["a"].message, "back-off 10s restarting failed container=a pod=p_n(u)");
    world.now += Duration::from_secs(10);
    world.instant += Duration::from_secs(10);
    assert_eq!(world.starts(), ["a#1"]);
}

#[test]
fn unhealthy_and_changed_containers_are_killed() {
    let mut world = World::new(json!({"containers": [{"name": "a", "image": "x:2"}]}));
    let old = containers::hash(&Container {
        name: "a".into(),
        image: Some("x:1".into()),
        ..Default::default()
    });
    world.add("a", State::Running, 0).annotations.insert(crate::runtime::labels::HASH.into(), old);
    assert_eq!(world.plan().kill[0].message, "Container a definition changed, will be restarted");
    world.runtime.containers[0].annotations.clear();
    assert!(world.plan().is_idle());
    world.health.failed.insert("a0".into(), "Container a failed liveness probe".into());
    let kill = &world.plan().kill[0];
    assert!(
        kill.why == Why::Unhealthy
            && kill.message == "Container a failed liveness probe, will be restarted"
    );
}

#[test]
fn a_container_that_was_made_and_not_started_is_made_anew() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    world.add("a", State::Created, 0);
    let plan = world.plan();
    assert_eq!((plan.remove, plan.start[0].attempt), (vec!["a0".to_owned()], 0));
}

#[test]
fn ephemeral_containers_start_once() {
    let mut world =
        World::new(json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "e"}]}));
    world.add("a", State::Running, 0);
    assert_eq!(world.starts(), ["e#0"]);
    world.add("e", State::Exited, 1);
    assert!(world.plan().is_idle());
}

fn told(resources: serde_json::Value) -> Settings {
    let container = serde_json::from_value(json!({"name": "c", "resources": resources}));
    Settings::of(&container.unwrap())
}

#[test]
fn running_containers_are_resized_less_before_more() {
    let sized = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu, "memory": memory}});
    let mut world = World::new(json!({"containers": [
        {"name": "a", "resources": sized("25m", "25Mi")}, {"name": "b", "resources": sized("15m", "15Mi")}]}));
    for name in ["a", "b"] {
        let container = world.add(name, State::Running, 0);
        container.resources = None;
        let id = container.id.clone();
        world.told.insert(id, told(sized("20m", "20Mi")));
    }
    let plan = world.plan();
    let order: Vec<_> = plan.update.iter().map(|u| (u.resource, u.name.as_str())).collect();
    use Resource::{Cpu, Memory};
    assert_eq!(order, [(Memory, "b"), (Memory, "a"), (Cpu, "b"), (Cpu, "a")]);
    assert_eq!(plan.update[0].settings.quota, 2000, "one resource at a time");
    assert_eq!(plan.update[3].settings, told(sized("25m", "25Mi")));
    assert!(plan.resizing && !plan.is_idle());
    world.told.insert("a0".into(), told(sized("25m", "25Mi")));
    world.told.insert("b0".into(), told(sized("15m", "15Mi")));
    assert!(world.plan().is_idle() && !world.plan().resizing);
}

#[test]
fn a_container_is_restarted_for_its_resources_whatever_its_restart_policy() {
    let mut world = World::new(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a",
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}],
        "resources": {"requests": {"cpu": "25m"}}}]}));
    let made = json!({"requests": {"cpu": "20m"}}).to_string();
    world.add("a", State::Running, 0).annotations.insert(labels::RESOURCES.into(), made);
    let plan = world.plan();
    assert_eq!(plan.kill[0].why, Why::Resize);
    assert_eq!(plan.kill[0].message, "Container a resize requires restart");
    world.runtime.containers[0].state = State::Exited;
    assert!(world.plan().finished, "it ended by itself");
    world.restarting.insert("a0".into());
    let mut delay = Delay::default();
    delay.bump(world.instant);
    world.delays.insert("a".into(), delay);
    assert_eq!(world.starts(), ["a#1"], "at once");
    assert!(world.plan().resizing);
}
