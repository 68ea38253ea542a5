//! TTL: tells kubelets, in an annotation of their node, how long they may use what they have read of
//! Secrets and ConfigMaps; the longer the more nodes there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use component::{ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::json;

use crate::context::{Context, Running};
use crate::writes::{Writer, ignore_missing};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Fewest and most nodes, and seconds. They overlap, so that a node more or less changes nothing.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// Registers the controller.
///
/// # Errors
/// Never.
pub fn start(context: &Context) -> anyhow::Result<Option<Running>> {
    let nodes = context.informer::<Node>();
    let queue = Arc::new(WorkQueue::new());
    let (all, wake) = (nodes.clone(), queue.clone());
    let step = Arc::new(AtomicUsize::new(0));
    let current = step.clone();
    nodes.on_change(move |change| {
        let before = current.load(Ordering::Relaxed);
        let after = step_for(all.len(), before);
        if after != before {
            current.store(after, Ordering::Relaxed);
            all.list().iter().for_each(|node| wake.add(ObjectKey::of(node.as_ref())));
        }
        if let Some(node) = change.new {
            wake.add(ObjectKey::of(node.as_ref()));
        }
    });
    let writer = Writer::new(context.client.clone(), nodes);
    Ok(Some(context.work("ttl", queue, 5, move |key| {
        let (writer, step) = (writer.clone(), step.clone());
        async move {
            let Some(node) = writer.cache().get(&key) else { return Ok(None) };
            let (_, _, seconds) = STEPS[step.load(Ordering::Relaxed)];
            if node.annotations().get(ANNOTATION) != Some(&seconds.to_string()) {
                let annotations = json!({ANNOTATION: seconds.to_string()});
                let patch = json!({"metadata": {"annotations": annotations}});
                ignore_missing(writer.patch(&node, patch).await)?;
            }
            Ok(None)
        }
    })))
}

/// The step for a number of nodes, coming from another one.
fn step_for(nodes: usize, mut step: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        assert_eq!(step_for(3, 0), 0);
        assert_eq!(step_for(101, 0), 1);
        assert_eq!(step_for(95, 1), 1);
        assert_eq!(step_for(89, 1), 0);
        assert_eq!(step_for(5000, 0), 4);
        assert_eq!(step_for(0, 4), 0);
    }
}
