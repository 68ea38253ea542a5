//! Controllers of pods, and the autoscaler.

use serde_json::{Value, json};

use super::pod::template;
use super::{Object, child, each, made, or_set, text};

const REVISION_HISTORY: i64 = 10;

pub(super) fn deployment(deployment: &mut Object) {
    let Some(spec) = made(deployment, "spec") else { return };
    or_set(spec, "replicas", 1);
    or_set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    or_set(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = made(spec, "strategy") {
        or_set(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            or_set(rolling, "maxUnavailable", "25%");
            or_set(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

pub(super) fn replica_set(set: &mut Object) {
    let Some(spec) = made(set, "spec") else { return };
    or_set(spec, "replicas", 1);
    template(spec);
}

/// The only workload whose selector and labels follow its template.
pub(super) fn replication_controller(controller: &mut Object) {
    let labels = controller
        .get("spec")
        .and_then(|s| s.pointer("/template/metadata/labels"))
        .filter(|l| l.as_object().is_some_and(|l| !l.is_empty()))
        .cloned();
    if let (Some(labels), Some(meta)) = (&labels, made(controller, "metadata")) {
        or_set(meta, "labels", labels.clone());
    }
    let Some(spec) = made(controller, "spec") else { return };
    if let Some(labels) = labels {
        or_set(spec, "selector", labels);
    }
    or_set(spec, "replicas", 1);
    if spec.contains_key("template") {
        template(spec);
    }
}

pub(super) fn daemon_set(set: &mut Object) {
    let Some(spec) = made(set, "spec") else { return };
    or_set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    if let Some(strategy) = made(spec, "updateStrategy") {
        or_set(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            or_set(rolling, "maxUnavailable", 1);
            or_set(rolling, "maxSurge", 0);
        }
    }
    template(spec);
}

pub(super) fn stateful_set(set: &mut Object) {
    let Some(spec) = made(set, "spec") else { return };
    or_set(spec, "replicas", 1);
    or_set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    or_set(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = made(spec, "updateStrategy") {
        if text(strategy, "type").is_empty() {
            strategy.insert("type".to_owned(), "RollingUpdate".into());
            made(strategy, "rollingUpdate");
        }
        if let Some(rolling) = child(strategy, "rollingUpdate") {
            or_set(rolling, "partition", 0);
        }
    }
    if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        or_set(policy, "whenDeleted", "Retain");
        or_set(policy, "whenScaled", "Retain");
    }
    for claim in each(spec, "volumeClaimTemplates") {
        or_set(claim, "apiVersion", "v1");
        or_set(claim, "kind", "PersistentVolumeClaim");
        super::core::persistent_volume_claim(claim);
    }
    template(spec);
}

pub(super) fn job(job: &mut Object) {
    let labels = job
        .get("spec")
        .and_then(|s| s.pointer("/template/metadata/labels"))
        .filter(|l| l.as_object().is_some_and(|l| !l.is_empty()))
        .cloned();
    if let (Some(labels), Some(meta)) = (labels, made(job, "metadata")) {
        or_set(meta, "labels", labels);
    }
    let Some(spec) = made(job, "spec") else { return };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        or_set(spec, "completions", 1);
    }
    or_set(spec, "parallelism", 1);
    let backoff = if spec.contains_key("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    or_set(spec, "backoffLimit", backoff);
    or_set(spec, "completionMode", "NonIndexed");
    or_set(spec, "suspend", false);
    let replacement =
        if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    or_set(spec, "podReplacementPolicy", replacement);
    job_spec(spec);
}

/// What is also completed in a CronJob's template.
fn job_spec(spec: &mut Object) {
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in each(policy, "rules") {
            for condition in each(rule, "onPodConditions") {
                or_set(condition, "status", "True");
            }
        }
    }
    template(spec);
}

pub(super) fn cron_job(cron: &mut Object) {
    let Some(spec) = made(cron, "spec") else { return };
    or_set(spec, "concurrencyPolicy", "Allow");
    or_set(spec, "suspend", false);
    or_set(spec, "successfulJobsHistoryLimit", 3);
    or_set(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = made(spec, "jobTemplate").and_then(|t| made(t, "spec")) {
        job_spec(job);
    }
}

pub(super) fn horizontal_pod_autoscaler(scaler: &mut Object) {
    let is_v1 = scaler.get("apiVersion").is_some_and(|v| v == "autoscaling/v1");
    let Some(spec) = made(scaler, "spec") else { return };
    or_set(spec, "minReplicas", 1);
    if is_v1 {
        return;
    }
    or_set(
        spec,
        "metrics",
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {
            "type": "Utilization", "averageUtilization": 80}}}]),
    );
    let Some(behavior) = child(spec, "behavior") else { return };
    if let Some(up) = made(behavior, "scaleUp") {
        or_set(up, "stabilizationWindowSeconds", 0);
        scaling_rules(
            up,
            json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15}]),
        );
    }
    if let Some(down) = made(behavior, "scaleDown") {
        scaling_rules(down, json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}

fn scaling_rules(rules: &mut Object, policies: Value) {
    or_set(rules, "selectPolicy", "Max");
    or_set(rules, "policies", policies);
}
