//! Pods through the API: created until Running, deleted until gone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use futures::future::try_join;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use lab::lab;
use serde_json::json;

use super::IMAGE;
use crate::bench::Bench;
use crate::drive::{Load, Sample, drive};

/// Requests in flight.
const CLIENTS: usize = 16;
/// How long all pods may take. Watches last longer.
const WITHIN: Duration = Duration::from_secs(240);
const WATCH_SECONDS: u32 = 280;
/// What the pods are found by.
const LABEL: &str = "app=bench";

/// Creates `count` pods on the node and waits until all are Running.
///
/// # Errors
/// One is refused, fails, or takes too long.
pub fn create(bench: &Bench, client: &Client, count: usize) -> anyhow::Result<Sample> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    transition(bench, &api, count, is_running, async |name| {
        api.create(&PostParams::default(), &pod(name)?).await?;
        Ok(())
    })
}

/// Deletes them and waits until their objects are gone.
///
/// # Errors
/// One takes too long.
pub fn delete(bench: &Bench, client: &Client, count: usize) -> anyhow::Result<Sample> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    transition(bench, &api, count, is_gone, async |name| {
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    })
}

/// Does something to every pod, and takes the time from each request to the event that tells of the
/// level.
fn transition(
    bench: &Bench,
    api: &Api<Pod>,
    count: usize,
    reached: fn(&WatchEvent<Pod>) -> anyhow::Result<Option<&str>>,
    act: impl AsyncFn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let sent = RefCell::new(BTreeMap::new());
    let load = Load { clients: CLIENTS, operations: count, within: WITHIN };
    let seen = bench.block_on(async {
        let listed =
            api.list(&ListParams::default().labels(LABEL)).await.context("listing pods")?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let all_sent = drive(load, 0, async |_, index| {
            let name = name(index);
            sent.borrow_mut().insert(name.clone(), Instant::now());
            act(&name).await
        });
        let all_seen = watch(api, &version, count, reached);
        let both = tokio::time::timeout(WITHIN, try_join(all_sent, all_seen)).await;
        let (_, seen) = both.with_context(|| format!("{count} pods: not within {WITHIN:?}"))??;
        anyhow::Ok(seen)
    })?;
    Ok(sample(&sent.into_inner(), &seen))
}

/// When `count` pods reached the level, by their names.
async fn watch(
    api: &Api<Pod>,
    version: &str,
    count: usize,
    reached: fn(&WatchEvent<Pod>) -> anyhow::Result<Option<&str>>,
) -> anyhow::Result<BTreeMap<String, Instant>> {
    let params = WatchParams::default().labels(LABEL).timeout(WATCH_SECONDS);
    let mut events = api.watch(&params, version).await.context("watching pods")?.boxed();
    let mut seen = BTreeMap::new();
    while seen.len() < count {
        let event = events.next().await.context("the watch ended")??;
        if let Some(name) = reached(&event)? {
            // Later events tell of the same level again.
            seen.entry(name.to_owned()).or_insert_with(Instant::now);
        }
    }
    Ok(seen)
}

/// From the sending of each to its level; all from the first sending to the last level.
fn sample(sent: &BTreeMap<String, Instant>, seen: &BTreeMap<String, Instant>) -> Sample {
    let took = |(name, level): (&String, &Instant)| Some(*level - *sent.get(name)?);
    let mut latencies: Vec<Duration> = seen.iter().filter_map(took).collect();
    latencies.sort_unstable();
    let (first, last) = (sent.values().min(), seen.values().max());
    let elapsed = first.zip(last).map(|(first, last)| *last - *first).unwrap_or_default();
    Sample { latencies, elapsed, server: Duration::ZERO }
}

fn is_running(event: &WatchEvent<Pod>) -> anyhow::Result<Option<&str>> {
    let pod = changed(event)?;
    let status = pod.and_then(|pod| pod.status.as_ref());
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => Ok(pod.and_then(|pod| pod.metadata.name.as_deref())),
        Some("Failed" | "Succeeded") => {
            let said = status.and_then(|status| status.message.as_deref()).unwrap_or_default();
            bail!("a pod ended: {said}")
        }
        _ => Ok(None),
    }
}

fn is_gone(event: &WatchEvent<Pod>) -> anyhow::Result<Option<&str>> {
    match event {
        WatchEvent::Deleted(pod) => Ok(pod.metadata.name.as_deref()),
        other => changed(other).map(|_| None),
    }
}

fn changed(event: &WatchEvent<Pod>) -> anyhow::Result<Option<&Pod>> {
    match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => Ok(Some(pod)),
        WatchEvent::Error(status) => bail!("the watch failed: {}", status.message),
        WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => Ok(None),
    }
}

fn name(index: usize) -> String {
    format!("bench-{index:03}")
}

fn pod(name: &str) -> anyhow::Result<Pod> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            // No scheduler is in the way.
            "nodeName": lab::node(1),
            "restartPolicy": "Always",
            "containers": [{
                "name": "pause",
                "image": IMAGE,
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
            }],
        },
    });
    serde_json::from_value(pod).context("a wrong pod")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_phase(phase: &str) -> WatchEvent<Pod> {
        let mut pod = pod("bench-007").unwrap();
        let status = json!({"phase": phase, "message": "no"});
        pod.status = serde_json::from_value(status).unwrap();
        WatchEvent::Modified(pod)
    }

    #[test]
    fn a_level_is_told_by_the_event_that_reaches_it() {
        assert_eq!(is_running(&with_phase("Pending")).unwrap(), None);
        assert_eq!(is_running(&with_phase("Running")).unwrap(), Some("bench-007"));
        assert_eq!(is_running(&with_phase("Failed")).unwrap_err().to_string(), "a pod ended: no");
        assert_eq!(is_gone(&with_phase("Failed")).unwrap(), None);
        let gone = WatchEvent::Deleted(pod("bench-001").unwrap());
        assert_eq!(is_gone(&gone).unwrap(), Some("bench-001"));
        assert_eq!(is_running(&gone).unwrap(), None);
    }

    #[test]
    fn times_run_from_each_pods_own_request() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let of = |times: [u64; 2]| {
            times.iter().enumerate().map(|(index, time)| (name(index), at(*time))).collect()
        };
        let sample = sample(&of([0, 10]), &of([50, 30]));
        assert_eq!(sample.latencies, [20, 50].map(Duration::from_millis));
        assert_eq!(sample.elapsed, Duration::from_millis(50));
    }
}
