//! Resizing in place (KEP-1287): a pod is given what it asks for when the node has room, then
//! its containers get it, then everybody is told.
//!
//! ```text
//! asked ≠ given ─► no room: PodResizePending (Deferred: looked at again when something is freed;
//!       │                   Infeasible: the node is too small)
//!       ▼ room: written down, ResizeStarted
//! given ≠ in effect ─► PodResizeInProgress, until every running container has it: ResizeCompleted
//! ```

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use component::events::EventType;
use cri::pb;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use super::plan::{Plan, Update};
use super::room::{self, Refusal, condition};
use super::worker::{RETRY, Worker};
use crate::node::allocations::{Known, Settled};
use crate::runtime::observe;
use crate::spec::containers;
use crate::spec::resize::{self, Resource, Settings};
use crate::status::conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING, Standing};

/// A resize that was granted and is not in effect everywhere.
#[derive(Clone, Debug)]
struct UnderWay {
    /// Of the spec that was granted.
    generation: Option<i64>,
    /// Why the last try failed, and when the next is due.
    failed: Option<(String, Instant)>,
}

/// What a worker remembers of resizes. All of it can be lost: the runtime and the pod's
/// conditions say the same.
#[derive(Default)]
pub struct Resizing {
    /// What the runtime was told last, by container id.
    pub told: HashMap<String, Settings>,
    /// Containers that were stopped to be made anew, by id.
    pub restarting: HashSet<String>,
    refused: Option<Refusal>,
    under_way: Option<UnderWay>,
}

impl Resizing {
    /// What the conditions say that an earlier kubelet left.
    pub fn of(pod: &Pod) -> Self {
        let begun = condition(pod, RESIZE_IN_PROGRESS);
        let under_way = begun.map(|c| UnderWay { generation: c.observed_generation, failed: None });
        Self { under_way, ..Self::default() }
    }

    /// Whether it waits for room.
    pub fn is_deferred(&self) -> bool {
        self.refused.as_ref().is_some_and(|r| r.reason == "Deferred")
    }

    /// The conditions that hold.
    pub fn standing(&self, pod: &Pod) -> Vec<Standing> {
        let pending = self.refused.as_ref().map(|refusal| Standing {
            kind: RESIZE_PENDING,
            reason: refusal.reason,
            message: refusal.message.clone(),
            generation: pod.metadata.generation,
        });
        let in_progress = self.under_way.as_ref().map(|u| Standing {
            kind: RESIZE_IN_PROGRESS,
            reason: if u.failed.is_some() { "Error" } else { "" },
            message: u.failed.as_ref().map(|f| f.0.clone()).unwrap_or_default(),
            generation: u.generation,
        });
        pending.into_iter().chain(in_progress).collect()
    }
}

#[derive(Serialize)]
struct Sized<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

/// What events about resizes end with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Sized<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Sized<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

fn sized(list: &[Container]) -> Vec<Sized<'_>> {
    let resources = |c: &Container| c.resources.clone().unwrap_or_default();
    list.iter().map(|c| Sized { name: &c.name, resources: resources(c) }).collect()
}

/// What happened to a pod's resources, and what they are.
fn tale(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let summary = Summary {
        init_containers: sized(containers::init(pod)),
        containers: sized(containers::app(pod)),
        generation: generation.unwrap_or(0),
        error,
    };
    let json = serde_json::to_string(&summary).expect("resources have string keys only");
    format!("Pod resize {what}: {json}")
}

/// A memory limit below what a container uses would have the kernel kill it.
async fn check_usage(runtime: &cri::Runtime, update: &Update) -> Result<(), String> {
    if update.resource != Resource::Memory || !update.less {
        return Ok(());
    }
    let filter = pb::ContainerStatsFilter { id: update.id.clone(), ..Default::default() };
    let request = pb::ListContainerStatsRequest { filter: Some(filter) };
    let answer = runtime.list_container_stats(request).await.map_err(|e| e.to_string())?;
    let memory = answer.stats.into_iter().find_map(|s| s.memory);
    let usage = memory.and_then(|m| m.usage_bytes).map(|v| v.value);
    let usage = usage.ok_or_else(|| format!("missing container {:?} memory usage", update.name))?;
    let limit = update.settings.memory;
    if i64::try_from(usage).is_ok_and(|usage| usage < limit) {
        return Ok(());
    }
    Err(format!(
        "cannot decrease memory limits: attempting to set container {:?} memory limit ({limit}) below current usage ({usage})",
        update.name
    ))
}

async fn apply(runtime: &cri::Runtime, update: &Update) -> Result<(), String> {
    let request = pb::UpdateContainerResourcesRequest {
        container_id: update.id.clone(),
        linux: Some(update.settings.linux()),
        ..Default::default()
    };
    runtime.update_container_resources(request).await.map(drop).map_err(|e| e.to_string())
}

impl Worker {
    /// Gives the pod what it asks for, if that is possible, and answers with the pod as it is
    /// to be run: with what it was given.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(super) fn allocate(&mut self, pod: &Arc<Pod>) -> io::Result<Arc<Pod>> {
        self.freed.mark_unchanged();
        let node = self.node.clone();
        let judge = |known: &Known| room::judge(pod, &node.pods.list(), known, &node.facts);
        let generation = pod.metadata.generation;
        let settled = node.allocations.settle(&self.id.uid, resize::asked(pod), judge)?;
        let refused = match settled {
            Settled::Refused(refusal) => Some(refusal),
            Settled::Changed => {
                let text = tale("started", pod, generation, "");
                node.event(pod, EventType::Normal, "ResizeStarted", text);
                self.resizing.under_way = Some(UnderWay { generation, failed: None });
                None
            }
            Settled::Already | Settled::First => None,
        };
        if let Some(refusal) =
            refused.as_ref().filter(|r| self.resizing.refused.as_ref() != Some(r))
        {
            let told = condition(pod, RESIZE_PENDING).is_some_and(|c| {
                c.reason.as_deref() == Some(refusal.reason)
                    && c.message.as_deref() == Some(&refusal.message)
            });
            if !told {
                let text = tale(refusal.reason, pod, generation, &refusal.message);
                let event = format!("Resize{}", refusal.reason);
                node.event(pod, EventType::Warning, &event, text);
            }
        }
        self.resizing.refused = refused;
        Ok(self.given(pod))
    }

    /// The pod with the resources that it was given.
    pub(super) fn given(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        resize::given(pod, self.node.allocations.get(&self.id.uid).as_ref())
    }

    /// Notes by the plan whether a resize is under way or has come to its end, and takes tries
    /// out of the plan that are not due.
    pub(super) fn follow_resize(&mut self, pod: &Pod, runtime: &observe::Pod, plan: &mut Plan) {
        let alive = |id: &String| runtime.containers.iter().any(|c| c.id == *id);
        self.resizing.told.retain(|id, _| alive(id));
        self.resizing.restarting.retain(alive);
        if !plan.resizing {
            if let Some(done) = self.resizing.under_way.take() {
                let text = tale("completed", pod, done.generation, "");
                self.node.event(pod, EventType::Normal, "ResizeCompleted", text);
            }
            return;
        }
        let generation = pod.metadata.generation;
        let begun = || UnderWay { generation, failed: None };
        let under_way = self.resizing.under_way.get_or_insert_with(begun);
        if let Some((_, retry_at)) = &under_way.failed
            && *retry_at > Instant::now()
        {
            plan.update.clear();
            plan.wake_at = Some(plan.wake_at.map_or(*retry_at, |at| at.min(*retry_at)));
        }
    }

    /// Tells the runtime what running containers are to have: less before more, so that the
    /// containers together never have more than the pod was given. The first failure ends it.
    pub(super) async fn resize(&mut self, pod: &Pod, updates: &[Update]) {
        let outcome = self.try_resize(updates).await;
        let Some(under_way) = &mut self.resizing.under_way else { return };
        let Err(why) = outcome else {
            under_way.failed = None;
            return;
        };
        if under_way.failed.as_ref().is_none_or(|f| f.0 != why) {
            let text = tale("error", pod, under_way.generation, &why);
            self.node.event(pod, EventType::Warning, "ResizeError", text);
        }
        under_way.failed = Some((why, Instant::now() + RETRY));
    }

    async fn try_resize(&mut self, updates: &[Update]) -> Result<(), String> {
        for update in updates {
            check_usage(&self.node.runtime, update).await?;
        }
        for update in updates {
            apply(&self.node.runtime, update).await?;
            self.resizing.told.insert(update.id.clone(), update.settings);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "resizing_tests.rs"]
mod tests;
