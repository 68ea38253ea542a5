//! Each of our parts alone in an otherwise upstream cluster, and all of ours together: the same
//! body and the same dozen of upstream's tests for every mix.
//!
//! Needs root and upstream's programs: `cargo xtask upstream`, then `cargo xtask test`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use lab::conformance::{State, run_tests};
use lab::lab::{Lab, Options};
use lab::mix::{Mix, Origin, Part};
use lab::nodes::MAX_PODS;
use lab::places::Places;

/// Nothing that is waited for here takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Short tests, each leaning on other parts.
const CHOSEN: [&str; 13] = [
    "[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]",
    "[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]",
    "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]",
    "[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]",
    "[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]",
    "[sig-auth] ServiceAccounts should mount an API token into pods [Conformance]",
    "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image [Conformance]",
    "[sig-network] DNS should provide DNS for services [Conformance]",
    "[sig-network] Services should serve multiport endpoints from pods [Conformance]",
    "[sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]",
    "[sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance] [Conformance]",
    "[sig-storage] EmptyDir volumes should support (non-root,0666,default) [LinuxOnly] [NodeConformance] [Conformance]",
    "[sig-storage] Projected combined should project all components that make up the projection API [Projection] [NodeConformance] [Conformance]",
];

/// Deploys two pods behind a Service, asks them from a third, and removes all of it.
fn serve(lab: &Lab) {
    let run = |args: &[&str]| {
        let output = lab.kubectl(args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {}: {said}", args.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let image = "--image=marina.dev/demo:v1";
    run(&["create", "namespace", "mix"]);
    run(&["-n", "mix", "create", "deployment", "web", image, "--replicas=2"]);
    run(&["-n", "mix", "expose", "deployment", "web", "--port=80", "--target-port=8080"]);
    run(&["-n", "mix", "rollout", "status", "deployment/web", "--timeout=120s"]);
    run(&["-n", "mix", "run", "client", image]);
    run(&["-n", "mix", "wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]);
    let deadline = Instant::now() + PATIENCE;
    let url = "http://web.mix.svc.cluster.local/";
    loop {
        // The Service's rules reach the node some moments after its endpoints are ready.
        let ask = ["-n", "mix", "exec", "client", "--", "wget", "-T", "5", "-qO-", url];
        let output = lab.kubectl(&ask).unwrap();
        if String::from_utf8_lossy(&output.stdout).contains("pod: web-") {
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(Instant::now() < deadline, "the Service does not answer: {said}");
        std::thread::sleep(Duration::from_millis(200));
    }
    run(&["delete", "namespace", "mix", "--timeout=120s"]);
}

fn works(mix: Mix) {
    let places = Places::from_env().unwrap();
    let options = Options { name: "mixtest".into(), mix, nodes: 2, max_pods: MAX_PODS };
    let started = Instant::now();
    let mut lab = Lab::start(&options, &places, &mut |_| {}).unwrap();
    println!("{}: nodes Ready after {:.1} s", mix.name(), started.elapsed().as_secs_f64());
    serve(&lab);
    let tests = CHOSEN.map(str::to_owned);
    let dir = places.cache.join("mixes").join(mix.name());
    let outcomes = run_tests(&lab, &places, &tests, &dir).unwrap();
    lab.check().unwrap();
    let failed: Vec<_> = outcomes.iter().filter(|o| o.state != State::Passed).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", mix.name());
    println!("{}: all well after {:.1} s", mix.name(), started.elapsed().as_secs_f64());
}

// One test: labs of one machine take turns.
#[test]
fn our_parts_work_alone_and_together() {
    let alone = Part::ALL.into_iter().map(Mix::only_ours);
    for mix in alone.chain([Mix::all(Origin::Ours)]) {
        works(mix);
    }
}
