//! The kubelet of a whole node, over a floor of bare calls of its container runtime.
//!
//! ```text
//! this program ──pods──► upstream's control plane ──► kubelet ──CRI──► containerd   (one sandbox)
//!              └──floor: CRI, while the kubelet is stopped ──────────► containerd
//! ```
//!
//! Unlike other subjects it pins nothing: control plane, kubelet, containerd and runc share every
//! processor, as on a node. The lab's files are in its directory `run-kubelet`.

mod floor;
mod node;
mod pods;

use std::time::Duration;

use anyhow::Context;
use lab::mix::{Origin, Part};

use self::node::Node;
use crate::bench::Bench;
use crate::drive::Sample;
use crate::figures::{Figures, Unit};
use crate::machine;
use crate::rounds::{Entry, Scene, Subject};

/// The subject.
pub const ENTRY: Entry = Entry {
    name: "kubelet",
    part: Part::Kubelet,
    about: "One node, a sandbox of the lab with upstream's containerd, runc and kube-proxy, joined to \
            upstream's control plane on the same machine; only the kubelet is swapped, and every turn has \
            a new cluster. Control plane, kubelet, containerd and client share every processor: nothing is \
            pinned, whatever the line above says. The pods run `pause`, which is on the node, with \
            `nodeName` set, `restartPolicy: Always`, small requests and the usual token volume; 16 requests \
            are in flight. Latencies run from the sending of a request to the arrival of the watch event \
            that says Running, or that the pod is gone. Processor time and PSS are those of the kubelet's \
            process alone (utime and stime in ticks of 10 ms), not of a control group: containerd, its \
            shims and runc are not in it; *per pod* is that from the first request to the last pod's event. \
            *Floor*: this client makes as many pods without a kubelet, all at \
            once, by RunPodSandbox, CreateContainer and StartContainer, and ends them by StopContainer and \
            StopPodSandbox, while the kubelet is stopped (SIGSTOP); it is measured in every turn, so the \
            ratio of its rows shows how steady the machine is. *Of its floor* is the time for all pods with \
            the kubelet, divided by that without.",
    start: |bench| {
        machine::use_all(bench.processors)?;
        Ok(Box::new(Kubelet))
    },
};

/// What every container runs.
const IMAGE: &str = "registry.k8s.io/pause:3.10";
/// Pods per scene.
const SIZES: [usize; 3] = [10, 50, 100];

struct Kubelet;

impl Subject for Kubelet {
    fn scenes(&self, bench: &Bench) -> Vec<Scene> {
        let sizes = &SIZES[..bench.either(SIZES.len(), 1)];
        sizes.iter().map(|size| Scene::new(format!("{size} pods"))).collect()
    }

    fn turn(
        &mut self,
        bench: &Bench,
        scene: usize,
        origin: Origin,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let count = SIZES[scene];
        let mut node = Node::start(bench, origin).context("starting a node")?;
        figures.memory("PSS, idle", "", node.kubelet.pss()?);
        figures.cpu("idle for a second", "", node.idle(bench)?);

        let before = node.kubelet.used()?;
        let created = pods::create(bench, &node.client, count).context("creating pods")?;
        enter("create until Running", &created, node.kubelet.used()? - before, figures);
        node.settle(bench)?;
        figures.memory("PSS, all Running", "", node.kubelet.pss()?);
        figures.cpu("all Running, for a second", "", node.idle(bench)?);

        let before = node.kubelet.used()?;
        let deleted = pods::delete(bench, &node.client, count).context("deleting pods")?;
        enter("delete until gone", &deleted, node.kubelet.used()? - before, figures);
        node.settle(bench)?;
        figures.memory("PSS, all gone", "", node.kubelet.pss()?);
        node.check()?;

        let _stopped = node.kubelet.stop()?;
        let floor = floor::measure(bench, &node, count).context("pods without a kubelet")?;
        for (name, sample) in [("floor: start", &floor.start), ("floor: stop", &floor.stop)] {
            figures.add(name, "", Unit::OpsPerSecond, sample.per_second());
            figures.latency(name, &sample.latencies);
        }
        let times =
            |sample: &Sample, floor: &Sample| sample.elapsed.div_duration_f64(floor.elapsed);
        let (start, stop) = (times(&created, &floor.start), times(&deleted, &floor.stop));
        figures.add("create until Running, of its floor", "", Unit::Times, start);
        figures.add("delete until gone, of its floor", "", Unit::Times, stop);
        Ok(())
    }
}

/// Enters what pods took, and the kubelet's price for each.
fn enter(name: &str, sample: &Sample, used: Duration, figures: &mut Figures) {
    figures.add(name, "", Unit::OpsPerSecond, sample.per_second());
    figures.latency(name, &sample.latencies);
    let pods = u32::try_from(sample.done()).unwrap_or(u32::MAX).max(1);
    figures.cpu(name, "per pod", used / pods);
}
