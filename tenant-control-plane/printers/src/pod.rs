//! Pods: the status column says in one word what people most need to know.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cell::{self, NONE, int_at, is_true, list_at, str_at};
use crate::duration::human_duration;
use crate::{AGE, Column, NAME, text, wide};

pub(crate) const COLUMNS: &[Column] = &[
    NAME,
    text("Ready"),
    text("Status"),
    text("Restarts"),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(crate) const TEMPLATE_COLUMNS: &[Column] =
    &[NAME, text("Containers"), text("Images"), text("Pod Labels")];

/// What the containers of a pod amount to.
struct Summary {
    status: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(crate) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match summary.last_restart.filter(|_| summary.restarts > 0) {
        Some(at) => {
            let ago = human_duration(now.as_second() - at.as_second());
            format!("{} ({ago} ago)", summary.restarts)
        }
        None => summary.restarts.to_string(),
    };
    let ip = match list_at(pod, "/status/podIPs").first() {
        Some(first) => cell::text_or(first, "/ip", NONE),
        None => cell::text_or(pod, "/status/podIP", NONE),
    };
    vec![
        cell::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        restarts.into(),
        cell::age(pod, now),
        ip,
        cell::text_or(pod, "/spec/nodeName", NONE),
        cell::text_or(pod, "/status/nominatedNodeName", NONE),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(pod, str_at(gate, "/conditionType"))).count();
    format!("{open}/{}", gates.len())
}

fn summary(pod: &Value) -> Summary {
    let mut summary = Summary {
        status: str_at(pod, "/status/phase").to_owned(),
        ready: 0,
        total: list_at(pod, "/spec/containers").len(),
        restarts: 0,
        last_restart: None,
    };
    summary.total += list_at(pod, "/spec/initContainers").iter().filter(|c| is_sidecar(c)).count();
    let reason = str_at(pod, "/status/reason");
    if !reason.is_empty() {
        summary.status = reason.to_owned();
    }
    if cell::condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        summary.status = "SchedulingGated".to_owned();
    }
    let sidecars = init_containers(pod, &mut summary);
    let initializing = sidecars.is_none();
    if !initializing || is_true(pod, "Initialized") {
        // Once initialised, only what still runs counts: sidecars and the containers themselves.
        let (restarts, last) = sidecars.unwrap_or((0, None));
        (summary.restarts, summary.last_restart) = (restarts, last);
        containers(pod, &mut summary);
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        let phase = str_at(pod, "/status/phase");
        if str_at(pod, "/status/reason") == "NodeLost" {
            summary.status = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.status = "Terminating".to_owned();
        }
    }
    summary
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn last_restart(status: &Value) -> Option<Timestamp> {
    cell::time(status, "/lastState/terminated/finishedAt")
}

/// Goes through the init containers up to the one that has not finished, which then names the
/// status. When all have, returns restarts and the last restart of the sidecars among them.
fn init_containers(pod: &Value, summary: &mut Summary) -> Option<(i64, Option<Timestamp>)> {
    let specs = list_at(pod, "/spec/initContainers");
    let mut sidecars = (0, None);
    for (index, status) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
        let restarts = int_at(status, "/restartCount");
        summary.restarts += restarts;
        summary.last_restart = summary.last_restart.max(last_restart(status));
        let sidecar = specs.iter().any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
        if sidecar {
            sidecars = (sidecars.0 + restarts, sidecars.1.max(last_restart(status)));
        }
        let state = &status["state"];
        if state.get("terminated").is_some_and(|t| int_at(t, "/exitCode") == 0) {
            continue;
        }
        if sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        summary.status = match (state.get("terminated"), str_at(state, "/waiting/reason")) {
            (Some(ended), _) => format!("Init:{}", ending(ended)),
            (None, "" | "PodInitializing") => format!("Init:{index}/{}", specs.len()),
            (None, reason) => format!("Init:{reason}"),
        };
        return None;
    }
    Some(sidecars)
}

/// How a container ended, in a word.
fn ending(terminated: &Value) -> String {
    match (str_at(terminated, "/reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    // From the last to the first: the first container's trouble is what is shown.
    for status in list_at(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts += int_at(status, "/restartCount");
        summary.last_restart = summary.last_restart.max(last_restart(status));
        let state = &status["state"];
        let waiting = str_at(state, "/waiting/reason");
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if let Some(ended) = state.get("terminated") {
            summary.status = ending(ended);
        } else if status["ready"] == true && state.get("running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        summary.status = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

pub(crate) fn conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match str_at(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

pub(crate) fn template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let [names, images] = cell::containers(object, "/template/spec/containers");
    vec![
        cell::name(object),
        names,
        images,
        cell::labels(object, "/template/metadata/labels").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(status: Value, spec: Value, deleted: bool) -> [String; 3] {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
        }
        let row = cells(&pod, Timestamp::from_second(300).expect("in range"));
        [1, 2, 3].map(|at| row[at].as_str().expect("text").to_owned())
    }

    #[test]
    fn the_status_says_what_people_need_to_know() {
        let one = json!({"containers": [{"name": "a"}]});
        let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
        let cases = [
            (json!({"phase": "Pending"}), one.clone(), ["0/1", "Pending", "0"]),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                one.clone(),
                ["1/1", "Running", "0"],
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}}}]}),
                one.clone(),
                ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}),
                one.clone(),
                ["0/1", "Completed", "0"],
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
                one.clone(),
                ["0/1", "ExitCode:2", "0"],
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), one.clone(), ["0/1", "Evicted", "0"]),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
                one,
                ["0/1", "SchedulingGated", "0"],
            ),
        ];
        for (status, spec, wanted) in cases {
            assert_eq!(printed(status, spec, false), wanted);
        }
    }

    #[test]
    fn init_containers_and_sidecars_count_in_their_own_way() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let waiting = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]});
        assert_eq!(printed(waiting, spec.clone(), false), ["0/2", "Init:0/2", "0"]);
        let failed = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        assert_eq!(printed(failed, spec.clone(), false), ["0/2", "Init:CrashLoopBackOff", "2"]);
        let up = json!({"phase": "Running",
            "initContainerStatuses": [
                {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
                {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"ready": true, "state": {"running": {}}}]});
        assert_eq!(printed(up.clone(), spec.clone(), false), ["2/2", "Running", "1"]);
        assert_eq!(printed(up, spec, true), ["2/2", "Terminating", "1"]);
    }
}
