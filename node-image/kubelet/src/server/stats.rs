//! Usage of the node and its containers: `/stats/summary` and `/metrics/resource`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use cri::pb;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Body, json as json_answer, text};
use crate::node::{Node, machine};
use crate::runtime::labels;
use crate::runtime::watch::PodId;

/// CPU time of the machine since boot, nanoseconds, from `/proc/stat`.
fn node_cpu(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // All but idle and waiting for I/O, in hundredths of a second.
    let busy: u64 =
        fields.iter().take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, v)| v).sum();
    Some(busy * 10_000_000)
}

fn value(v: Option<&pb::UInt64Value>) -> Option<u64> {
    v.map(|v| v.value)
}

async fn by_pod(node: &Node) -> BTreeMap<PodId, Vec<pb::ContainerStats>> {
    let answer = node.runtime.list_container_stats(pb::ListContainerStatsRequest::default()).await;
    let mut pods: BTreeMap<PodId, Vec<pb::ContainerStats>> = BTreeMap::new();
    for stats in answer.map(|a| a.stats).unwrap_or_default() {
        let Some(attributes) = &stats.attributes else { continue };
        let get = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let pod = PodId {
            uid: get(labels::POD_UID),
            namespace: get(labels::POD_NAMESPACE),
            name: get(labels::POD_NAME),
        };
        pods.entry(pod).or_default().push(stats);
    }
    pods
}

fn container_name(stats: &pb::ContainerStats) -> String {
    stats.attributes.as_ref().and_then(|a| a.metadata.clone()).unwrap_or_default().name
}

fn cpu(stats: &pb::ContainerStats) -> (Option<u64>, Option<u64>) {
    let cpu = stats.cpu.as_ref();
    (
        cpu.and_then(|c| value(c.usage_core_nano_seconds.as_ref())),
        cpu.and_then(|c| value(c.usage_nano_cores.as_ref())),
    )
}

fn working_set(stats: &pb::ContainerStats) -> Option<u64> {
    stats.memory.as_ref().and_then(|m| value(m.working_set_bytes.as_ref()))
}

fn container_json(stats: &pb::ContainerStats, now: &str) -> Value {
    let (usage, nano_cores) = cpu(stats);
    let memory = stats.memory.as_ref();
    let layer = stats.writable_layer.as_ref();
    json!({
        "name": container_name(stats),
        "cpu": {"time": now, "usageNanoCores": nano_cores, "usageCoreNanoSeconds": usage},
        "memory": {"time": now, "workingSetBytes": working_set(stats),
            "usageBytes": memory.and_then(|m| value(m.usage_bytes.as_ref())),
            "rssBytes": memory.and_then(|m| value(m.rss_bytes.as_ref()))},
        "rootfs": {"time": now, "usedBytes": layer.and_then(|l| value(l.used_bytes.as_ref())),
            "inodesUsed": layer.and_then(|l| value(l.inodes_used.as_ref()))},
    })
}

/// `/stats/summary`: what the runtime and the kernel report, without history.
pub async fn summary(node: &Arc<Node>) -> Response<Body> {
    let now = Timestamp::now().to_string();
    let disk = machine::disk(&node.config.root_dir).unwrap_or_default();
    let used: u64 = u64::try_from(node.memory - machine::available_memory()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let pods: Vec<Value> = by_pod(node)
        .await
        .into_iter()
        .map(|(pod, containers)| {
            let sum = |f: &dyn Fn(&pb::ContainerStats) -> Option<u64>| containers.iter().filter_map(f).sum::<u64>();
            json!({
                "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "cpu": {"time": now, "usageCoreNanoSeconds": sum(&|c| cpu(c).0), "usageNanoCores": sum(&|c| cpu(c).1)},
                "memory": {"time": now, "workingSetBytes": sum(&working_set)},
                "containers": containers.iter().map(|c| container_json(c, &now)).collect::<Vec<_>>(),
            })
        })
        .collect();
    json_answer(&json!({
        "node": {
            "nodeName": node.facts.name,
            "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu(&stat)},
            "memory": {"time": now, "workingSetBytes": used,
                "availableBytes": machine::available_memory()},
            "fs": {"time": now, "capacityBytes": disk.total, "availableBytes": disk.free,
                "usedBytes": disk.total.saturating_sub(disk.free), "inodes": disk.inodes, "inodesFree": disk.inodes_free},
        },
        "pods": pods,
    }))
}

/// `/metrics/resource`: what metrics-server reads.
pub async fn resource_metrics(node: &Arc<Node>) -> Response<Body> {
    let mut out = String::new();
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let used: u64 = u64::try_from(node.memory - machine::available_memory()).unwrap_or(0);
    let _ = writeln!(out, "# TYPE node_cpu_usage_seconds_total counter");
    let _ = writeln!(out, "node_cpu_usage_seconds_total {}", seconds(node_cpu(&stat).unwrap_or(0)));
    let _ = writeln!(
        out,
        "# TYPE node_memory_working_set_bytes gauge\nnode_memory_working_set_bytes {used}"
    );
    let (mut cpus, mut memories, mut pod_cpus, mut pod_memories) = Default::default();
    let line = |to: &mut String, name: &str, labels: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(to, "{name}{{{labels}}} {value}");
    };
    for (pod, stats) in by_pod(node).await {
        let pod_labels = format!("namespace=\"{}\",pod=\"{}\"", pod.namespace, pod.name);
        let (mut pod_cpu, mut pod_memory) = (0, 0);
        for stats in &stats {
            let labels = format!("container=\"{}\",{pod_labels}", container_name(stats));
            let (cpu, memory) = (cpu(stats).0.unwrap_or(0), working_set(stats).unwrap_or(0));
            line(&mut cpus, "container_cpu_usage_seconds_total", &labels, &seconds(cpu));
            line(&mut memories, "container_memory_working_set_bytes", &labels, &memory);
            pod_cpu += cpu;
            pod_memory += memory;
        }
        line(&mut pod_cpus, "pod_cpu_usage_seconds_total", &pod_labels, &seconds(pod_cpu));
        line(&mut pod_memories, "pod_memory_working_set_bytes", &pod_labels, &pod_memory);
    }
    for (name, kind, lines) in [
        ("container_cpu_usage_seconds_total", "counter", cpus),
        ("container_memory_working_set_bytes", "gauge", memories),
        ("pod_cpu_usage_seconds_total", "counter", pod_cpus),
        ("pod_memory_working_set_bytes", "gauge", pod_memories),
    ] {
        let _ = write!(out, "# TYPE {name} {kind}\n{lines}");
    }
    let _ = writeln!(out, "# TYPE resource_scrape_error gauge\nresource_scrape_error 0");
    text(StatusCode::OK, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time() {
        assert_eq!(node_cpu("cpu  10 0 5 1000 7 0 1 0 0 0\ncpu0 1\n"), Some(160_000_000));
        assert_eq!(node_cpu(""), None);
    }
}
