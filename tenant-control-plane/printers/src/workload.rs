//! What runs pods: sets, deployments, jobs, and what scales them.

use jiff::Timestamp;
use serde_json::Value;

use crate::cell::{self, NONE, UNKNOWN, UNSET, int_at, is_true, list_at, str_at};
use crate::duration::human_duration;
use crate::{AGE, Column, NAME, number, text, wide};

const POD_CONTAINERS: &str = "/spec/template/spec/containers";

pub(crate) const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn replica_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(set, POD_CONTAINERS);
    // A ReplicationController's selector is a plain map.
    let is_plain = set["kind"] == "ReplicationController";
    let selector = if is_plain { cell::labels } else { cell::selector };
    vec![
        cell::name(set),
        cell::number(set, "/spec/replicas"),
        cell::number(set, "/status/replicas"),
        cell::number(set, "/status/readyReplicas"),
        cell::age(set, now),
        names,
        images,
        selector(set, "/spec/selector").into(),
    ]
}

pub(crate) const DEPLOYMENT: &[Column] = &[
    NAME,
    text("Ready"),
    number("Up-to-date"),
    number("Available"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(deployment, POD_CONTAINERS);
    vec![
        cell::name(deployment),
        ready_of(deployment),
        cell::number(deployment, "/status/updatedReplicas"),
        cell::number(deployment, "/status/availableReplicas"),
        cell::age(deployment, now),
        names,
        images,
        cell::selector(deployment, "/spec/selector").into(),
    ]
}

fn ready_of(workload: &Value) -> Value {
    let (ready, wanted) =
        (int_at(workload, "/status/readyReplicas"), int_at(workload, "/spec/replicas"));
    format!("{ready}/{wanted}").into()
}

pub(crate) const DAEMON_SET: &[Column] = &[
    NAME,
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    text("Node Selector"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(set, POD_CONTAINERS);
    vec![
        cell::name(set),
        cell::number(set, "/status/desiredNumberScheduled"),
        cell::number(set, "/status/currentNumberScheduled"),
        cell::number(set, "/status/numberReady"),
        cell::number(set, "/status/updatedNumberScheduled"),
        cell::number(set, "/status/numberAvailable"),
        cell::labels(set, "/spec/template/spec/nodeSelector").into(),
        cell::age(set, now),
        names,
        images,
        cell::selector(set, "/spec/selector").into(),
    ]
}

pub(crate) const STATEFUL_SET: &[Column] =
    &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")];

pub(crate) fn stateful_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(set, POD_CONTAINERS);
    vec![cell::name(set), ready_of(set), cell::age(set, now), names, images]
}

pub(crate) const REVISION: &[Column] = &[NAME, text("Controller"), number("Revision"), AGE];

pub(crate) fn revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owners = list_at(revision, "/metadata/ownerReferences");
    let controller = owners.iter().find(|owner| owner["controller"] == true).map(|owner| {
        let group = str_at(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let kind = str_at(owner, "/kind").to_lowercase();
        let dotted = if group.is_empty() { kind } else { format!("{kind}.{group}") };
        format!("{dotted}/{}", str_at(owner, "/name"))
    });
    vec![
        cell::name(revision),
        controller.unwrap_or_else(|| NONE.to_owned()).into(),
        cell::number(revision, "/revision"),
        cell::age(revision, now),
    ]
}

pub(crate) const JOB: &[Column] = &[
    NAME,
    text("Status"),
    text("Completions"),
    text("Duration"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(job, POD_CONTAINERS);
    let succeeded = int_at(job, "/status/succeeded");
    let completions = match (job.pointer("/spec/completions"), int_at(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, workers @ 2..) => format!("{succeeded}/1 of {workers}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let start = cell::time(job, "/status/startTime");
    let end = cell::time(job, "/status/completionTime").unwrap_or(now);
    let duration = start.map(|start| human_duration(end.as_second() - start.as_second()));
    vec![
        cell::name(job),
        job_status(job).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        cell::age(job, now),
        names,
        images,
        cell::selector(job, "/spec/selector").into(),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let is_deleted = job.pointer("/metadata/deletionTimestamp").is_some();
    match () {
        () if is_true(job, "Complete") => "Complete",
        () if is_true(job, "Failed") => "Failed",
        () if is_deleted => "Terminating",
        () if is_true(job, "Suspended") => "Suspended",
        () if is_true(job, "FailureTarget") => "FailureTarget",
        () if is_true(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(crate) const CRON_JOB: &[Column] = &[
    NAME,
    text("Schedule"),
    text("Timezone"),
    text("Suspend"),
    number("Active"),
    text("Last Schedule"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub(crate) fn cron_job(cron: &Value, now: Timestamp) -> Vec<Value> {
    let template = "/spec/jobTemplate/spec";
    let [names, images] = cell::containers(cron, &format!("{template}/template/spec/containers"));
    let suspended = match cron.pointer("/spec/suspend") {
        Some(Value::Bool(true)) => "True",
        Some(_) => "False",
        None => UNSET,
    };
    let last = cell::since(cron, "/status/lastScheduleTime", now);
    vec![
        cell::name(cron),
        cell::text(cron, "/spec/schedule"),
        cell::text_or(cron, "/spec/timeZone", NONE),
        suspended.into(),
        cell::len_at(cron, "/status/active").into(),
        last.unwrap_or_else(|| NONE.to_owned()).into(),
        cell::age(cron, now),
        names,
        images,
        cell::selector(cron, &format!("{template}/selector")).into(),
    ]
}

pub(crate) const SCALE: &[Column] = &[NAME, number("Desired"), number("Available"), AGE];

pub(crate) fn scale(scale: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(scale),
        cell::number(scale, "/spec/replicas"),
        cell::number(scale, "/status/replicas"),
        cell::age(scale, now),
    ]
}

pub(crate) const AUTOSCALER: &[Column] = &[
    NAME,
    text("Reference"),
    text("Targets"),
    text("MinPods"),
    text("MaxPods"),
    text("Replicas"),
    AGE,
];

pub(crate) fn autoscaler(scaler: &Value, now: Timestamp) -> Vec<Value> {
    let target = "/spec/scaleTargetRef";
    let reference = format!(
        "{}/{}",
        str_at(scaler, &format!("{target}/kind")),
        str_at(scaler, &format!("{target}/name"))
    );
    vec![
        cell::name(scaler),
        reference.into(),
        targets(scaler).into(),
        cell::plain_or(scaler, "/spec/minReplicas", UNSET).into(),
        cell::plain_or(scaler, "/spec/maxReplicas", "0").into(),
        cell::plain_or(scaler, "/status/currentReplicas", "0").into(),
        cell::age(scaler, now),
    ]
}

/// `cpu: 12%/80%, memory: <unknown>/1Gi + 1 more...`
fn targets(scaler: &Value) -> String {
    if let Some(percent) = scaler.pointer("/spec/targetCPUUtilizationPercentage") {
        let current = cell::plain_or(scaler, "/status/currentCPUUtilizationPercentage", UNKNOWN);
        let sign = if current == UNKNOWN { "" } else { "%" };
        return format!("cpu: {current}{sign}/{percent}%");
    }
    let current = list_at(scaler, "/status/currentMetrics");
    let texts: Vec<String> = list_at(scaler, "/spec/metrics")
        .iter()
        .enumerate()
        .map(|(at, metric)| target(metric, current.get(at).unwrap_or(&Value::Null)))
        .collect();
    if texts.is_empty() { NONE.to_owned() } else { cell::first(&texts, 2, ", ") }
}

fn target(metric: &Value, current: &Value) -> String {
    let kind = str_at(metric, "/type");
    let source = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, now) = (&metric[source]["target"], &current[source]["current"]);
    let value = |name: &str| cell::plain_or(now, &format!("/{name}"), UNKNOWN);
    let text = if let Some(percent) = wanted.get("averageUtilization") {
        let current = value("averageUtilization");
        let sign = if current == UNKNOWN { "" } else { "%" };
        format!("{current}{sign}/{percent}%")
    } else if wanted.get("averageValue").is_some() {
        let average = if matches!(kind, "Object" | "External") { " (avg)" } else { "" };
        format!(
            "{}/{}{average}",
            value("averageValue"),
            cell::plain_or(wanted, "/averageValue", "")
        )
    } else {
        format!("{}/{}", value("value"), cell::plain_or(wanted, "/value", ""))
    };
    match kind {
        "Resource" | "ContainerResource" => format!("{}: {text}", str_at(&metric[source], "/name")),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_says_how_far_it_is() {
        let now = Timestamp::from_second(100).expect("in range");
        let object = json!({"spec": {"completions": 3}, "status": {"succeeded": 1, "startTime": "1970-01-01T00:00:10Z"}});
        assert_eq!(job(&object, now)[1..4], [json!("Running"), json!("1/3"), json!("90s")]);
        let queue = json!({"spec": {"parallelism": 4}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}});
        assert_eq!(job(&queue, now)[1..4], [json!("Complete"), json!("0/1 of 4"), json!("")]);
    }

    #[test]
    fn an_autoscaler_compares_each_metric_with_its_target() {
        let object = json!({
            "spec": {"metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "1Gi"}}}]},
            "status": {"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}]}});
        assert_eq!(targets(&object), "cpu: 12%/80%, memory: <unknown>/1Gi");
    }
}
