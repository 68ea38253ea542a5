//! `autoscaling/v1` and `autoscaling/v2 HorizontalPodAutoscaler`.
//!
//! What v1 cannot say travels in annotations, under the names that upstream uses.

use serde_json::{Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn is_cpu_utilization(metric: &Value, target: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"][target]["averageUtilization"].is_number()
}

/// Takes the CPU utilisation out of a list of v2 metrics: (utilisation, the others).
fn split(metrics: Option<Value>, target: &str) -> (Option<Value>, Vec<Value>) {
    let Some(Value::Array(metrics)) = metrics else { return (None, Vec::new()) };
    let (mut cpu, mut others) = (None, Vec::new());
    for metric in metrics {
        if cpu.is_none() && is_cpu_utilization(&metric, target) {
            cpu = Some(metric["resource"][target]["averageUtilization"].clone());
        } else {
            others.push(metric);
        }
    }
    (cpu, others)
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    crate::strategy::child(crate::strategy::child(object, "metadata"), "annotations")[key] =
        value.to_string().into();
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let text = annotations.as_object_mut()?.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn take(object: &mut Value, parent: &str, key: &str) -> Option<Value> {
    object.get_mut(parent)?.as_object_mut()?.remove(key)
}

/// From v2 to v1.
pub fn v2_to_v1(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v1".into();
    let (cpu, others) = split(take(object, "spec", "metrics"), "target");
    if let Some(cpu) = cpu {
        object["spec"]["targetCPUUtilizationPercentage"] = cpu;
    }
    if !others.is_empty() {
        annotate(object, METRICS, &others.into());
    }
    if let Some(behavior) = take(object, "spec", "behavior") {
        annotate(object, BEHAVIOR, &behavior);
    }
    let (cpu, others) = split(take(object, "status", "currentMetrics"), "current");
    if let Some(cpu) = cpu {
        object["status"]["currentCPUUtilizationPercentage"] = cpu;
    }
    if !others.is_empty() {
        annotate(object, CURRENT, &others.into());
    }
    if let Some(conditions) = take(object, "status", "conditions") {
        annotate(object, CONDITIONS, &conditions);
    }
}

/// From v1 to v2.
pub fn v1_to_v2(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v2".into();
    let list = |value: Option<Value>| match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let mut metrics = list(take_annotation(object, METRICS));
    if let Some(percent) = take(object, "spec", "targetCPUUtilizationPercentage") {
        metrics.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
        }}));
    }
    if !metrics.is_empty() {
        object["spec"]["metrics"] = metrics.into();
    }
    if let Some(behavior) = take_annotation(object, BEHAVIOR) {
        object["spec"]["behavior"] = behavior;
    }
    let mut current = list(take_annotation(object, CURRENT));
    if let Some(percent) = take(object, "status", "currentCPUUtilizationPercentage") {
        current.push(json!({"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": percent},
        }}));
    }
    if !current.is_empty() {
        object["status"]["currentMetrics"] = current.into();
    }
    if let Some(conditions) = take_annotation(object, CONDITIONS) {
        object["status"]["conditions"] = conditions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_loses_nothing() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "metadata": {"name": "a", "annotations": {}},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 5}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "x"}}},
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 80}}},
                ]},
        });
        let mut there = v2.clone();
        v2_to_v1(&mut there);
        assert_eq!(there["spec"]["targetCPUUtilizationPercentage"], 80);
        v1_to_v2(&mut there);
        assert_eq!(there, v2);
    }
}
