//! Measures the first cluster and prints a table: `cargo xtask bench`.
//!
//! Nothing is asserted here. Each figure is one run; the median of several regions is shown.

use std::time::{Duration, Instant};

use e2e::{Cluster, Region, check, eventually};

/// Nothing here takes longer, not even an emulated machine's boot.
const LONG: Duration = Duration::from_secs(400);
/// How long the cluster is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(15);

/// Names of figures and their values in each round.
type Figures = Vec<(String, Vec<f64>)>;

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut figures = Figures::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        measure(&mut figures);
    }
    println!("| figure | unit | median | min | max |");
    println!("|-|-|-|-|-|");
    for (name, mut values) in figures {
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[0], values[values.len() - 1]);
        let unit = if name.starts_with("idle PSS") { "MiB" } else { "s" };
        println!("| {name} | {unit} | {:.1} | {low:.1} | {high:.1} |", values[values.len() / 2]);
    }
}

fn measure(figures: &mut Figures) {
    let region = Region::start();
    region.sign_in();
    let mut note = |name: &str, value: f64| match figures.iter_mut().find(|(n, _)| n == name) {
        Some((_, values)) => values.push(value),
        None => figures.push((name.to_owned(), vec![value])),
    };
    let started = Instant::now();
    let sandbox = Cluster::create(&region, "sandbox", "single", "sandbox");
    eventually("/readyz", LONG, || {
        let ready = sandbox.try_kubectl(&["get", "--raw", "/readyz"]);
        check(ready.status.success(), String::from_utf8_lossy(&ready.stderr))
    });
    note("create to `/readyz` by kubectl, single", seconds(started));

    let started = Instant::now();
    region.marina(&["node-groups", "create", "sandbox", "w", "--count", "2"]);
    sandbox.wait_for_nodes(2, LONG);
    note("node group of two to Ready, sandbox", seconds(started));

    let image = "--image=marina.dev/demo:v1";
    let started = Instant::now();
    sandbox.kubectl(&["create", "deployment", "one", image]);
    sandbox.wait_for_pods("app=one", 1, LONG);
    note("apply to pod Running and ready, sandbox", seconds(started));

    std::thread::sleep(IDLE);
    for process in
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"]
    {
        let pids = region.processes(&[&format!("/{process} ")]);
        let pss: Vec<_> = pids.iter().filter_map(|pid| pss_mib(*pid)).collect();
        if let Some(largest) = pss.into_iter().max_by(f64::total_cmp) {
            note(&format!("idle PSS of {process}"), largest);
        }
    }

    let vm = Cluster::create(&region, "vm", "single", "qemu");
    let started = Instant::now();
    region.marina(&["node-groups", "create", "vm", "w", "--count", "2"]);
    vm.wait_for_nodes(2, LONG);
    note("node group of two to Ready, qemu", seconds(started));
    let started = Instant::now();
    vm.kubectl(&["create", "deployment", "one", image]);
    vm.wait_for_pods("app=one", 1, LONG);
    note("apply to pod Running and ready, qemu", seconds(started));

    let started = Instant::now();
    region.marina(&["clusters", "delete", "vm", "--yes", "--wait"]);
    note("delete to gone, two qemu workers", seconds(started));
    let started = Instant::now();
    Cluster::create(&region, "ha", "ha", "sandbox");
    note("create to ready, ha on one host", seconds(started));
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

/// Proportional set size of a process (`/proc/<pid>/smaps_rollup`).
fn pss_mib(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
