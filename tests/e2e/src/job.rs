//! The main job, step by step, for workers of any kind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::cluster::text;
use crate::{Cluster, Region, check, eventually};

/// A Deployment of three replicas and its Service.
const WEB: &str = include_str!("../manifests/web.yaml");

/// How often kubectl may fail for want of speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long things may take with one kind of worker.
#[derive(Clone, Copy)]
pub struct Pace {
    /// From nothing to a Ready Node.
    pub boot: Duration,
    /// From a change to pods that are ready.
    pub pods: Duration,
}

/// Cluster and two workers; returns when both Nodes are Ready.
pub fn first_cluster<'a>(region: &'a Region, driver: &str, pace: Pace) -> Cluster<'a> {
    region.sign_in();
    let cluster = Cluster::create(region, "demo", "single", driver);
    let started = Instant::now();
    region.marina(&["node-groups", "create", "demo", "workers", "--count", "2"]);
    cluster.wait_for_nodes(2, pace.boot);
    println!("{driver}: two workers Ready {:.1} s after they were asked for", elapsed(started));
    let nodes = region.marina_json(&["nodes", "demo"]);
    eventually("the API shows both nodes ready", pace.pods, || {
        let nodes = region.marina_json(&["nodes", "demo"]);
        let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
        check(nodes.len() == 2 && nodes.iter().all(|n| n["phase"] == "ready"), format!("{nodes:?}"))
    });
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(2));
    cluster
}

fn elapsed(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Deployment, Service, DNS, and everything that people do with kubectl.
pub fn use_it(cluster: &Cluster<'_>, pace: Pace) {
    let started = Instant::now();
    cluster.kubectl_with(&["apply", "-f", "-"], WEB);
    let pods = cluster.wait_for_pods("app=web", 3, pace.pods);
    println!("three pods ready {:.1} s after apply", elapsed(started));
    let nodes: BTreeSet<_> = pods.iter().map(|(_, node)| node.clone()).collect();
    assert_eq!(nodes.len(), 2, "pods run on both workers: {pods:?}");
    services_answer(cluster, &pods, pace);
    streams(cluster, &pods[0].0);
    rollouts(cluster, pace);
    reading(cluster);
}

/// The ClusterIP and the DNS name answer from a pod on each worker, with answers from both workers.
fn services_answer(cluster: &Cluster<'_>, pods: &[(String, String)], pace: Pace) {
    let service = cluster.get(&["service", "web"]).unwrap();
    let ip = text(&service["spec"]["clusterIP"]);
    let mut asked = BTreeSet::new();
    for (pod, _) in pods.iter().filter(|(_, node)| asked.insert(node.clone())) {
        for host in [ip.as_str(), "web", "web.default.svc.cluster.local"] {
            eventually(&format!("http://{host} answers in {pod}"), pace.pods, || {
                let ask =
                    ["exec", pod, "--", "wget", "-q", "-T", "5", "-O-", &format!("http://{host}/")];
                let output = cluster.try_kubectl(&ask);
                let answer = String::from_utf8_lossy(&output.stdout).into_owned();
                check(answer.contains("pod: web-"), String::from_utf8_lossy(&output.stderr))
            });
        }
    }
    eventually("every pod answers", pace.pods, || {
        let loop_ = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -q -T 5 -O- http://web/; done";
        let output = cluster.try_kubectl(&["exec", &pods[0].0, "--", "sh", "-c", loop_]);
        let answers = String::from_utf8_lossy(&output.stdout).into_owned();
        check(pods.iter().all(|(pod, _)| answers.contains(pod.as_str())), answers)
    });
}

/// logs, exec, exec -it, cp, port-forward.
fn streams(cluster: &Cluster<'_>, pod: &str) {
    assert!(cluster.kubectl(&["logs", pod]).contains("listens"));
    assert_eq!(cluster.kubectl_with(&["exec", "-i", pod, "--", "cat"], "ping"), "ping");
    let failed = cluster.try_kubectl(&["exec", pod, "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "the command's exit code is kubectl's");

    let kubectl = cluster.kubectl_command(&["exec", "-it", pod, "--", "tty"]);
    let line: Vec<_> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let tty = std::process::Command::new("script")
        .args(["-qec", &line.join(" "), "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script starts");
    let tty = String::from_utf8_lossy(&tty.stdout).into_owned();
    assert!(tty.contains("/dev/pts/"), "exec -it has a terminal: {tty}");

    let (there, back) = (cluster.region.file("there"), cluster.region.file("back"));
    let content = "some bytes\n".repeat(10_000);
    std::fs::write(&there, &content).unwrap();
    let remote = format!("{pod}:/tmp/copied");
    for copy in [["cp", there.to_str().unwrap(), &remote], ["cp", &remote, back.to_str().unwrap()]]
    {
        // An emulated machine can be slower than kubectl waits for tar to start.
        eventually("kubectl cp", PATIENCE, || {
            let output = cluster.try_kubectl(&copy);
            check(output.status.success(), String::from_utf8_lossy(&output.stderr))
        });
    }
    assert_eq!(std::fs::read_to_string(&back).unwrap(), content, "cp keeps the content");
    port_forward(cluster);
}

fn port_forward(cluster: &Cluster<'_>) {
    let mut command = cluster.kubectl_command(&["port-forward", "service/web", ":80"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    // Forwarding from 127.0.0.1:41234 -> 8080
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    let url = format!("http://127.0.0.1:{}/forwarded", port.unwrap_or_default());
    let answer = ureq::get(&url).call().and_then(|mut a| a.body_mut().read_to_string());
    let _ = child.kill();
    let _ = child.wait();
    let answer = answer.unwrap_or_else(|error| panic!("{line} {url}: {error}"));
    assert!(answer.contains("GET /forwarded"), "{answer}");
}

/// rollout status, history and undo; scale.
fn rollouts(cluster: &Cluster<'_>, pace: Pace) {
    let timeout = format!("--timeout={}s", pace.pods.as_secs());
    cluster.kubectl(&["set", "env", "deployment/web", "COLOUR=blue"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", &timeout]);
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/web"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", &timeout]);
    let web = cluster.get(&["deployment", "web"]).unwrap();
    assert!(web["spec"]["template"]["spec"]["containers"][0]["env"].is_null(), "undone");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    cluster.wait_for_pods("app=web", 4, pace.pods);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    cluster.wait_for_pods("app=web", 3, pace.pods);
}

/// describe, explain, get -w.
fn reading(cluster: &Cluster<'_>) {
    let described = cluster.kubectl(&["describe", "pods", "-l", "app=web"]);
    for word in ["Node:", "Ready ", "kube-api-access-", "Scheduled", "Started"] {
        assert!(described.contains(word), "describe shows {word}: {described}");
    }
    let explained = cluster.kubectl(&["explain", "deployment.spec.replicas"]);
    assert!(explained.contains("FIELD: replicas"), "{explained}");
    let mut command = cluster.kubectl_command(&["get", "configmaps", "-w", "--no-headers"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("kube-root-ca.crt")), "the watch lists first");
    cluster.kubectl(&["create", "configmap", "seen", "--from-literal=a=b"]);
    assert!(lines.any(|line| line.starts_with("seen")), "the watch shows what is new");
    let _ = watch.kill();
    let _ = watch.wait();
    cluster.kubectl(&["delete", "configmap", "seen"]);
}

/// A killed process restarts, a deleted pod is replaced.
pub fn pods_come_back(cluster: &Cluster<'_>, pace: Pace) {
    let pods = cluster.wait_for_pods("app=web", 3, pace.pods);
    let (victim, _) = &pods[0];
    cluster.try_kubectl(&["exec", victim, "--", "kill", "1"]);
    eventually("the container restarts", pace.pods, || {
        let pod = cluster.get(&["pod", victim])?;
        let status = &pod["status"]["containerStatuses"][0];
        let back = status["restartCount"].as_i64() > Some(0) && status["ready"] == true;
        check(back, status.to_string())
    });
    let (victim, _) = &pods[1];
    cluster.kubectl(&["delete", "pod", victim]);
    let now = cluster.wait_for_pods("app=web", 3, pace.pods);
    assert!(now.iter().all(|(name, _)| name != victim), "{now:?}");
}

/// The machine of a worker dies: its pods run elsewhere, and a replacement joins. `machine` are words
/// in the command line of a machine's first process.
pub fn a_worker_dies(cluster: &Cluster<'_>, machine: &[&str], pace: Pace) {
    let before = cluster.wait_for_nodes(2, pace.boot);
    let started = Instant::now();
    cluster.region.kill_one(machine);
    let now = eventually("a replacement joins", pace.boot + pace.pods, || {
        let now = cluster.ready_nodes()?;
        let new = now.iter().filter(|node| !before.contains(node)).count();
        check(now.len() == 2 && new == 1, format!("{before:?} became {now:?}"))?;
        Ok(now)
    });
    println!("a replacement is Ready {:.1} s after a worker's machine died", elapsed(started));
    let victim = before.iter().find(|node| !now.contains(node)).expect("one of two is gone");
    eventually("three pods run on living workers", pace.pods, || {
        let pods = cluster.ready_pods("app=web")?;
        let elsewhere = pods.iter().all(|(_, node)| node != victim);
        check(pods.len() == 3 && elsewhere, format!("{pods:?}"))
    });
    println!("all pods run elsewhere {:.1} s after it", elapsed(started));
    let events = cluster.region.marina(&["events", "demo"]);
    assert!(events.contains(victim.as_str()), "the owner is told: {events}");
}

/// kill -9 of every process of Marina and of the control plane, one after the other, while
/// something is written: nothing acknowledged is lost, and the pods never notice.
pub fn processes_die(cluster: &Cluster<'_>, pace: Pace) {
    let pods = cluster.wait_for_pods("app=web", 3, pace.pods);
    let restarts = |cluster: &Cluster<'_>| -> Result<String, String> {
        let pods = cluster.get(&["pods", "-l", "app=web"])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<_> = pods
            .iter()
            .map(|pod| {
                let name = text(&pod["metadata"]["name"]);
                format!("{name}={}", pod["status"]["containerStatuses"][0]["restartCount"])
            })
            .collect();
        all.sort();
        Ok(all.join(" "))
    };
    let before = restarts(cluster).unwrap();
    let victims: [&[&str]; 7] = [
        &["/etcd ", "--data-dir"],
        &["/kube-apiserver "],
        &["/kube-controller-manager "],
        &["/kube-scheduler "],
        &["provisioner agent"],
        &["provisioner controller"],
        &["portal --database"],
    ];
    for (round, victim) in victims.into_iter().enumerate() {
        let name = format!("kept-{round}");
        cluster.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]);
        let old = cluster.region.processes(victim);
        cluster.region.kill(victim);
        eventually(&format!("{victim:?} is back"), pace.pods, || {
            let now = cluster.region.processes(victim);
            check(!now.is_empty() && now.iter().all(|pid| !old.contains(pid)), format!("{now:?}"))
        });
        eventually(&format!("the API answers after {victim:?}"), pace.pods, || {
            cluster.get(&["configmap", &name]).map(drop)
        });
    }
    // The controllers act again: a new deployment runs.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=4"]);
    cluster.wait_for_pods("app=web", 4, pace.pods);
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    cluster.wait_for_pods("app=web", 3, pace.pods);
    let kept = cluster.get(&["configmaps"]).unwrap();
    let kept = kept["items"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = kept.iter().map(|map| text(&map["metadata"]["name"])).collect();
    assert!((0..7).all(|round| names.contains(&format!("kept-{round}"))), "{names:?}");
    let after = restarts(cluster).unwrap();
    for (pod, _) in pods.iter().filter(|(pod, _)| after.contains(pod.as_str())) {
        let count = |all: &str| {
            let found = all.split(' ').find(|entry| entry.starts_with(pod.as_str()));
            found.map(str::to_owned)
        };
        assert_eq!(count(&before), count(&after), "the pods never noticed");
    }
}

/// The cluster and everything that it had is gone, and its kubeconfig is refused.
pub fn delete_it(cluster: &Cluster<'_>) {
    let region = cluster.region;
    let id = text(&region.marina_json(&["clusters", "get", &cluster.name])["id"]);
    let started = Instant::now();
    region.marina(&["clusters", "delete", &cluster.name, "--yes", "--wait", "--timeout", "60"]);
    println!("the cluster is gone {:.1} s after its deletion", elapsed(started));
    let refused = cluster.try_kubectl(&["get", "nodes", "--request-timeout=5s"]);
    assert!(!refused.status.success(), "the kubeconfig is refused");
    assert_eq!(region.try_marina(&["clusters", "get", &cluster.name]).status.code(), Some(3));
    eventually("nothing is left", Duration::from_secs(10), || leftovers(region, &id));
}

/// Processes, namespaces, mounts, cgroups and files of a cluster.
fn leftovers(region: &Region, id: &str) -> Result<(), String> {
    let data = region.data().to_string_lossy().into_owned();
    let clusters = region.data().join("agents/h1/clusters");
    let files = std::fs::read_dir(clusters).into_iter().flatten().count();
    check(files == 0, format!("{files} directories of clusters"))?;
    for word in ["/kube-apiserver ", "/etcd ", "qemu-system"] {
        let pids = region.processes(&[word]);
        check(pids.is_empty(), format!("{word}: {pids:?}"))?;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let left: Vec<_> = mounts.lines().filter(|line| line.contains(&data)).collect();
    check(left.is_empty(), format!("mounts: {left:?}"))?;
    for dir in ["/run/netns", "/var/run/netns"] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            check(!name.contains(id), format!("network namespace {name}"))?;
        }
    }
    let found = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "4", "-type", "d", "-name", &format!("*{id}*")])
        .output()
        .map_err(|error| error.to_string())?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    check(found.trim().is_empty(), format!("cgroups: {found}"))
}
