//! Notices that something changed in the runtime and says for which pods.
//!
//! The whole state is listed every second (two calls, whatever the number of pods) and
//! compared with the last one; where the runtime has an event stream, its events ring at once.
//! A ring carries nothing: whoever hears it asks the runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cri::{Runtime, pb};
use tokio_util::sync::CancellationToken;

use super::labels;

/// How often everything is listed.
const PERIOD: Duration = Duration::from_secs(1);
/// How long to wait before asking again for a stream that broke or does not exist.
const STREAM_RETRY: Duration = Duration::from_secs(60);

/// Identity of a pod as the runtime's labels have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct PodId {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

/// States of sandboxes are kept apart from those of containers by this much.
const SANDBOX: i32 = 100;

/// All that the runtime has, by pod: state by id. Of containers it is the number of the
/// runtime's state, of sandboxes a larger one.
pub type World = BTreeMap<PodId, BTreeMap<String, i32>>;

/// Lists everything that carries a pod's labels.
///
/// # Errors
/// When the runtime does not answer.
pub async fn list(runtime: &Runtime) -> cri::Result<World> {
    let mut world = World::new();
    let mut add = |labels: &std::collections::HashMap<String, String>, id: String, state: i32| {
        let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let pod = PodId {
            uid: get(labels::POD_UID),
            namespace: get(labels::POD_NAMESPACE),
            name: get(labels::POD_NAME),
        };
        if !pod.uid.is_empty() {
            world.entry(pod).or_default().insert(id, state);
        }
    };
    for sandbox in runtime.list_pod_sandbox(pb::ListPodSandboxRequest::default()).await?.items {
        add(&sandbox.labels, sandbox.id, SANDBOX + sandbox.state);
    }
    for container in runtime.list_containers(pb::ListContainersRequest::default()).await?.containers
    {
        add(&container.labels, container.id, container.state);
    }
    Ok(world)
}

/// The uids of pods in which something differs.
pub fn changed(before: &World, after: &World) -> BTreeSet<String> {
    let differs = |a: &World, b: &World| -> Vec<String> {
        a.iter()
            .filter(|(pod, state)| b.get(*pod) != Some(state))
            .map(|(pod, _)| pod.uid.clone())
            .collect()
    };
    differs(before, after).into_iter().chain(differs(after, before)).collect()
}

/// Runs for ever: calls `ring` with the uid of each pod that changed and `seen` with each
/// complete list.
pub async fn run(
    runtime: Runtime,
    stop: CancellationToken,
    ring: impl Fn(&str),
    seen: impl Fn(&World),
) {
    let mut world = World::new();
    let mut failing = false;
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = None;
    let mut retry_at = tokio::time::Instant::now();
    loop {
        if events.is_none() && tokio::time::Instant::now() >= retry_at {
            events = runtime.events().await.ok();
            retry_at = tokio::time::Instant::now() + STREAM_RETRY;
        }
        let next_event = async {
            match &mut events {
                Some(stream) => stream.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            event = next_event => match event {
                Ok(Some(event)) => {
                    let labels = event.pod_sandbox_status.map(|s| s.labels).unwrap_or_default();
                    if let Some(uid) = labels.get(labels::POD_UID) {
                        ring(uid);
                    }
                    continue;
                }
                Ok(None) | Err(_) => { events = None; continue; }
            },
            _ = tick.tick() => {}
        }
        match list(&runtime).await {
            Ok(now) => {
                if failing {
                    tracing::info!("the container runtime answers again");
                }
                failing = false;
                for uid in changed(&world, &now) {
                    ring(&uid);
                }
                world = now;
                seen(&world);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!("the container runtime does not answer: {error}");
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_in_both_directions() {
        let pod = |uid: &str| PodId { uid: uid.into(), ..Default::default() };
        let state = |s: i32| BTreeMap::from([("c".to_owned(), s)]);
        let before = World::from([
            (pod("same"), state(1)),
            (pod("exits"), state(1)),
            (pod("goes"), state(2)),
        ]);
        let after = World::from([
            (pod("same"), state(1)),
            (pod("exits"), state(2)),
            (pod("comes"), state(1)),
        ]);
        let uids: Vec<_> = changed(&before, &after).into_iter().collect();
        assert_eq!(uids, ["comes", "exits", "goes"]);
    }
}
