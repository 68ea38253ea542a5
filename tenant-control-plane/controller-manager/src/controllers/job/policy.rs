//! `podFailurePolicy` (KEP-3329) and `successPolicy` (KEP-3998). Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What a failed pod means for its Job.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It counts, as without a policy.
    Count,
    /// It does not count.
    Ignore,
    /// It counts, and its index has failed for good.
    FailIndex,
    /// It counts, and the Job has failed, for this reason.
    FailJob(String),
}

impl Verdict {
    /// True when the failure counts towards the limits.
    pub(super) fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }
}

/// Judges a failed pod by the first rule that matches it.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "Count" => return Verdict::Count,
            "FailIndex" => return Verdict::FailIndex,
            "FailJob" => {
                return Verdict::FailJob(format!("{what} matching FailJob rule at index {index}"));
            }
            _ => {}
        }
    }
    Verdict::Count
}

/// In which respect the rule matches the pod.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(codes) = &rule.on_exit_codes {
        let main = status.container_statuses.iter().flatten();
        let mut all = main.chain(status.init_container_statuses.iter().flatten());
        let (container, code) = all.find_map(|container| exit_code(container, codes))?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let found = status.conditions.iter().flatten().find(|condition| {
        let is = |status: &Option<String>| status.as_deref().unwrap_or("True") == condition.status;
        patterns.iter().any(|p| p.type_ == condition.type_ && is(&p.status))
    })?;
    Some(format!("Pod {namespace}/{name} has condition {}", found.type_))
}

fn exit_code<'a>(
    container: &'a ContainerStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let matches = match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    };
    (named && code != 0 && matches).then_some((container.name.as_str(), code))
}

/// Which rule of the success policy the succeeded indexes satisfy.
pub(super) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let rules = spec.success_policy.as_ref().filter(|_| !succeeded.is_empty())?.rules.iter();
    let enough = |have: i32, wanted: Option<i32>| wanted.is_some_and(|wanted| have >= wanted);
    let mut satisfied = rules.enumerate().filter(|(_, rule)| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, spec.completions.unwrap_or_default());
            let have = wanted.intersection(succeeded).len();
            !wanted.is_empty() && (have == wanted.len() || enough(have, rule.succeeded_count))
        }
        None => enough(succeeded.len(), rule.succeeded_count),
    });
    satisfied.next().map(|(index, _)| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(policies: Value) -> JobSpec {
        let mut spec = json!({"completions": 10, "template": {}});
        spec.as_object_mut().unwrap().extend(policies.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn pod(code: i32, conditions: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": {
            "phase": "Failed", "conditions": conditions,
            "containerStatuses": [{"name": "main", "ready": false, "restartCount": 0, "image": "",
                "imageID": "", "state": {"terminated": {"exitCode": code}}}]}}))
        .unwrap()
    }

    #[test]
    fn the_first_matching_rule_judges_a_failure() {
        let spec = spec(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes":
                {"containerName": "main", "operator": "NotIn", "values": [1, 2]}},
            {"action": "Count", "onExitCodes":
                {"containerName": "other", "operator": "In", "values": [1]}},
        ]}}));
        let evicted = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(judge(&spec, &pod(42, evicted)), Verdict::Ignore);
        let why =
            "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&spec, &pod(42, json!([]))), Verdict::FailJob(why.into()));
        assert_eq!(judge(&spec, &pod(3, json!([]))), Verdict::FailIndex);
        assert_eq!(judge(&spec, &pod(1, json!([]))), Verdict::Count);
        assert_eq!(judge(&spec, &pod(0, json!([]))), Verdict::Count);
    }

    #[test]
    fn a_success_policy_is_satisfied_by_indexes_or_a_count() {
        let met = |rules: Value, succeeded: &[i32]| {
            let spec = spec(json!({"successPolicy": {"rules": rules}}));
            let mut set = Indexes::default();
            succeeded.iter().for_each(|index| set.insert(*index));
            success(&spec, &set)
        };
        let first = Some("Matched rules at index 0".to_owned());
        assert_eq!(met(json!([{"succeededIndexes": "0,2-3"}]), &[0, 2, 3, 7]), first);
        assert_eq!(met(json!([{"succeededIndexes": "0,2-3"}]), &[0, 2, 7]), None);
        assert_eq!(
            met(json!([{"succeededIndexes": "0,2-3", "succeededCount": 2}]), &[0, 2]),
            first
        );
        assert_eq!(met(json!([{"succeededCount": 2}]), &[4]), None);
        let second = Some("Matched rules at index 1".to_owned());
        assert_eq!(met(json!([{"succeededIndexes": "5"}, {"succeededCount": 1}]), &[4]), second);
        assert_eq!(met(json!([{"succeededCount": 0}]), &[]), None);
        assert_eq!(met(json!([{"succeededIndexes": "0-2147483646"}]), &[0, 2]), None);
    }
}
