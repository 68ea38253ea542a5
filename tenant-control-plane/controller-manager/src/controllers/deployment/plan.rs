//! Decides what to write next for one Deployment. Pure.

use std::collections::HashSet;

use component::workqueue::Requeue;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::annotations::{self, Annotations};
use super::template::{self, HASH_LABEL};
use super::{rollout, scaling, status};

/// One write.
#[derive(Debug, Clone)]
pub enum Change {
    /// Create the ReplicaSet of the present template.
    Create(Box<ReplicaSet>),
    /// Change a ReplicaSet's size and the sizes noted on it.
    Scale {
        /// As it was seen.
        set: Box<ReplicaSet>,
        /// Size before.
        from: i32,
        /// Size after.
        to: i32,
        /// All annotations after.
        annotations: Annotations,
    },
    /// Change the newest ReplicaSet's annotations and `minReadySeconds`.
    Annotate {
        /// As it was seen.
        set: Box<ReplicaSet>,
        /// All annotations after.
        annotations: Annotations,
        /// As the Deployment says.
        min_ready_seconds: Option<i32>,
    },
    /// Delete a ReplicaSet beyond the history limit.
    Delete(Box<ReplicaSet>),
    /// Note the newest revision on the Deployment.
    Revision(String),
    /// Write the Deployment's status.
    Status(Box<DeploymentStatus>),
}

/// What the decision rests on.
pub struct World {
    /// ReplicaSets that the Deployment controls.
    pub sets: Vec<ReplicaSet>,
    /// Those (by uid) that have a pod which has not ended, deleted or not.
    pub with_pods: HashSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// The writes, in order, and when to look again although nothing changed.
#[derive(Debug, Default)]
pub struct Plan {
    /// Writes.
    pub changes: Vec<Change>,
    /// Next look.
    pub requeue: Requeue,
}

/// The Deployment with its ReplicaSets sorted into the newest and the old ones.
pub(super) struct Rollout<'a> {
    pub deployment: &'a Deployment,
    pub spec: &'a DeploymentSpec,
    /// Those with another template, oldest first.
    pub old: Vec<ReplicaSet>,
    pub newest: Option<ReplicaSet>,
    pub now: Timestamp,
}

/// A ReplicaSet's wanted size.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// A ReplicaSet's available pods.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}

pub(super) fn set_size(set: &mut ReplicaSet, to: i32) {
    set.spec.get_or_insert_default().replicas = Some(to);
}

impl Rollout<'_> {
    pub(super) fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.newest)
    }

    pub(super) fn total(&self) -> i32 {
        self.all().map(size).sum()
    }

    pub(super) fn is_recreate(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }
}

/// See the module documentation.
pub fn plan(deployment: &Deployment, world: World) -> Plan {
    let Some(spec) = &deployment.spec else { return Plan::default() };
    let newest = template::newest(deployment, &world.sets).cloned();
    let newest_uid = newest.as_ref().and_then(|set| set.metadata.uid.clone());
    let mut old: Vec<_> = world
        .sets
        .into_iter()
        .filter(|set| set.metadata.uid != newest_uid || newest_uid.is_none())
        .collect();
    old.sort_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let mut rollout = Rollout { deployment, spec, old, newest, now: world.now };
    let mut plan = Plan::default();
    let mut status = deployment.status.clone().unwrap_or_default();

    if deployment.metadata.deletion_timestamp.is_some() {
        let next = status::calculate(&rollout, status);
        status::finish(&rollout, next, &mut plan);
        return plan;
    }
    status::note_pause(&rollout, &mut status);
    adopt_newest(&mut rollout, &mut status, &mut plan);
    let before: Vec<_> = rollout.all().cloned().collect();
    let paused = spec.paused == Some(true);
    if paused || scaling::is_resized(&rollout) {
        scaling::scale(&mut rollout);
        if paused {
            clean_up(&rollout, &mut plan);
        }
        emit_scales(&rollout, &before, &mut plan);
        let next = status::calculate(&rollout, status);
        status::finish(&rollout, next, &mut plan);
        return plan;
    }
    if rollout.is_recreate() {
        rollout::recreate(&mut rollout, &world.with_pods);
    } else {
        rollout::rolling_update(&mut rollout);
    }
    create_newest(&mut rollout, &before, &mut status, &mut plan, &world.with_pods);
    emit_scales(&rollout, &before, &mut plan);
    if status::is_complete(&rollout, &status::calculate(&rollout, status.clone())) {
        clean_up(&rollout, &mut plan);
    }
    let next = status::calculate(&rollout, status);
    let next = status::progress(&rollout, next, &mut plan);
    status::finish(&rollout, next, &mut plan);
    plan
}

/// Gives the newest ReplicaSet, if there is one, its revision and annotations.
fn adopt_newest(rollout: &mut Rollout<'_>, status: &mut DeploymentStatus, plan: &mut Plan) {
    let Some(set) = &mut rollout.newest else { return };
    let revision = rollout.old.iter().map(annotations::revision).max().unwrap_or_default() + 1;
    let wanted = annotations::for_newest(rollout.deployment, set, revision);
    let min_ready = rollout.spec.min_ready_seconds;
    let has_min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
    if *set.annotations() != wanted
        || has_min_ready.unwrap_or_default() != min_ready.unwrap_or_default()
    {
        plan.changes.push(Change::Annotate {
            set: Box::new(set.clone()),
            annotations: wanted.clone(),
            min_ready_seconds: Some(min_ready.unwrap_or_default()),
        });
        set.metadata.annotations = Some(wanted);
        // The write changes the version; later writes of this plan must not insist on the old one.
        set.metadata.resource_version = None;
    }
    let now = annotations::revision(set).to_string();
    if rollout.deployment.annotations().get(annotations::REVISION) != Some(&now) {
        plan.changes.push(Change::Revision(now));
    }
    let known = status::find(status, "Progressing").is_some();
    if status::deadline(rollout.spec).is_some() && !known {
        let message = format!("Found new replica set \"{}\"", set.name_any());
        status::set_condition(
            status,
            status::condition("Progressing", "True", "FoundNewReplicaSet", message, rollout.now),
        );
    }
}

/// Creates the ReplicaSet of the present template, unless a Recreate rollout still waits.
fn create_newest(
    rollout: &mut Rollout<'_>,
    before: &[ReplicaSet],
    status: &mut DeploymentStatus,
    plan: &mut Plan,
    with_pods: &HashSet<String>,
) {
    if rollout.newest.is_some() {
        return;
    }
    let old_pods_left = before.iter().any(|set| {
        size(set) > 0 || set.metadata.uid.as_ref().is_some_and(|uid| with_pods.contains(uid))
    });
    if rollout.is_recreate() && old_pods_left {
        return;
    }
    let mut set = new_set(rollout, status.collision_count);
    let revision = rollout.old.iter().map(annotations::revision).max().unwrap_or_default() + 1;
    set.metadata.annotations = Some(annotations::for_newest(rollout.deployment, &set, revision));
    rollout.newest = Some(set);
    let to = rollout::newest_size(rollout);
    let max = rollout.replicas() + rollout::surge(rollout);
    let desired = rollout.replicas();
    if let Some(set) = &mut rollout.newest {
        set_size(set, to);
        set.metadata.annotations = Some(annotations::with_sizes(set, desired, max));
        plan.changes.push(Change::Create(Box::new(set.clone())));
        plan.changes.push(Change::Revision(revision.to_string()));
        if status::deadline(rollout.spec).is_some() {
            let message = format!("Created new replica set \"{}\"", set.name_any());
            status::set_condition(
                status,
                status::condition(
                    "Progressing",
                    "True",
                    "NewReplicaSetCreated",
                    message,
                    rollout.now,
                ),
            );
        }
    }
}

fn new_set(rollout: &Rollout<'_>, collisions: Option<i32>) -> ReplicaSet {
    let mut template = rollout.spec.template.clone();
    let hash = template::fnv_name(&template, collisions);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = rollout.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", rollout.deployment.name_any())),
            namespace: rollout.deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![crate::owners::controller_reference(rollout.deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: rollout.spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Turns the sizes that differ from `before` into writes, scale-ups first.
fn emit_scales(rollout: &Rollout<'_>, before: &[ReplicaSet], plan: &mut Plan) {
    let max = rollout.replicas() + rollout::surge(rollout);
    let mut scales = Vec::new();
    for set in rollout.all() {
        let Some(was) = before.iter().find(|b| b.metadata.uid == set.metadata.uid) else {
            continue;
        };
        let annotations = annotations::with_sizes(set, rollout.replicas(), max);
        // Sizes are noted on what is scaled and on whatever still has pods.
        let noted = size(set) == 0 || annotations == *set.annotations();
        if size(was) != size(set) || !noted {
            let mut seen = was.clone();
            seen.metadata.resource_version.clone_from(&set.metadata.resource_version);
            scales.push(Change::Scale {
                set: Box::new(seen),
                from: size(was),
                to: size(set),
                annotations,
            });
        }
    }
    scales.sort_by_key(|change| match change {
        Change::Scale { from, to, .. } => from.max(to) != to,
        _ => false,
    });
    plan.changes.extend(scales);
}

/// Deletes old, empty ReplicaSets beyond `revisionHistoryLimit`.
fn clean_up(rollout: &Rollout<'_>, plan: &mut Plan) {
    let Some(limit) = rollout.spec.revision_history_limit else { return };
    let mut old: Vec<_> =
        rollout.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    old.sort_by_key(|set| annotations::revision(set));
    for set in old.into_iter().take(surplus) {
        let status = set.status.clone().unwrap_or_default();
        let settled = set.metadata.generation <= status.observed_generation;
        if status.replicas == 0 && size(set) == 0 && settled {
            plan.changes.push(Change::Delete(Box::new(set.clone())));
        }
    }
}
