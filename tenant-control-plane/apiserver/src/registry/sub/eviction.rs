//! `pods/eviction`: a deletion that respects disruption budgets.
//!
//! Source: Kubernetes documentation, "API-initiated Eviction".

use std::sync::Arc;

use admission::Operation;
use http::StatusCode;
use machinery::{GroupResource, GroupVersionKind, LabelSelector, ObjectSource, Reason, Status};
use serde_json::{Value, json};

use super::pod::set_condition;
use crate::hooks::Subject;
use crate::http::{Request, Response, respond};
use crate::registry::options::DeleteOptions;
use crate::registry::write::{Part, change, current};
use crate::registry::{Call, decode, delete, no_resource};
use crate::strategy::child;

/// Evicts the pod.
pub async fn evict(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let gvk =
        GroupVersionKind { group: "policy".into(), version: "v1".into(), kind: "Eviction".into() };
    let mut body = decode::object(call, &mut request, &gvk).await?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let dry_run = DeleteOptions::read(&body["deleteOptions"], call)?.dry_run;
    let subject = Subject { gvk: &gvk, subresource: "eviction", old: None, dry_run, options: None };
    call.api.admit_body(call, &subject, Operation::Create, &mut body).await?;
    // As webhooks left them, but for what they were told of: whether this is only a try.
    let given = DeleteOptions::read(&body["deleteOptions"], call)?;
    let mut options = DeleteOptions { dry_run, ..given };
    call.api.caches.catch_up().await?;
    let pod = current(call, false).await?.object;
    if needs_budget(&pod) {
        spend_budget(call, &pod, options.dry_run).await?;
    }
    if !options.dry_run {
        mark(call, &mut options).await?;
    }
    delete::delete_object(call, &options).await?;
    let created = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(respond::json(StatusCode::CREATED, &created))
}

/// Says on the pod why it goes: its owner may count it differently from one that failed.
async fn mark(call: &Arc<Call>, options: &mut DeleteOptions) -> Result<(), Status> {
    let (now, wanted) = (&call.now, options.clone());
    let doomed = |pod: &Value| {
        delete::check_preconditions(call, &wanted, pod)?;
        Ok(disrupted(pod, now))
    };
    let about = call.about(&call.info.namespace, &call.info.name);
    let (_, revision) = change(&about, Part::Computed("status"), false, doomed).await?;
    if let Some(version) = &mut options.resource_version {
        *version = revision.to_string();
    }
    Ok(())
}

fn disrupted(pod: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    let why = ("EvictionByEvictionAPI", "Eviction API: evicting");
    set_condition(&mut pod, "DisruptionTarget", Some(why), now);
    pod
}

/// A pod that serves nobody may go without asking.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes one disruption from the pod's budget; 429 when there is none left.
async fn spend_budget(call: &Arc<Call>, pod: &Value, dry_run: bool) -> Result<(), Status> {
    let namespace = &call.info.namespace;
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    let budgets = ObjectSource::list(&*call.api.caches, &resource, Some(namespace));
    let selected = budgets.into_iter().filter(|budget| {
        LabelSelector::from_json(&budget["spec"]["selector"]).is_ok_and(|s| s.matches_object(pod))
    });
    let selected: Vec<_> = selected.collect();
    let budget = match selected.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let table = call.api.table.snapshot();
    let row = table.find("policy", "v1", "poddisruptionbudgets").ok_or_else(no_resource)?.clone();
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let mut about = call.about(namespace, name);
    about.row = row;
    let (pod_name, now) = (call.info.name.clone(), call.now.clone());
    let ready = is_ready(pod);
    change(&about, Part::Computed("status"), dry_run, |old| spend(old, &pod_name, &now, ready))
        .await?;
    Ok(())
}

fn spend(budget: &Value, pod: &str, now: &str, pod_is_ready: bool) -> Result<Value, Status> {
    let status = &budget["status"];
    let number = |key: &str| status[key].as_i64().unwrap_or(0);
    let refuse = |text: String| {
        let mut refused = Status::new(
            Reason::TooManyRequests,
            "Cannot evict pod as it would violate the pod's disruption budget.",
        );
        refused.details = json!({"causes": [{"reason": "DisruptionBudget", "message": text}]});
        Err(refused)
    };
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    if !pod_is_ready {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always
            || number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0
        {
            return Ok(budget.clone());
        }
    }
    let observed = number("observedGeneration");
    if observed < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return refuse(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    if number("disruptionsAllowed") <= 0 {
        return refuse(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        ));
    }
    let mut new = budget.clone();
    let left = number("disruptionsAllowed") - 1;
    let status = child(&mut new, "status");
    status["disruptionsAllowed"] = left.into();
    child(status, "disruptedPods")[pod] = now.into();
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = |left| {
            json!({
                "metadata": {"name": "b", "generation": 1},
                "status": {"observedGeneration": 1, "disruptionsAllowed": left, "currentHealthy": 2, "desiredHealthy": 1},
            })
        };
        let spent = spend(&budget(1), "p", "now", true).unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert_eq!(spend(&budget(0), "p", "now", true).unwrap_err().code, 429);
        spend(&budget(0), "p", "now", false).unwrap();
    }

    #[test]
    fn an_evicted_pod_says_why_it_goes() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let marked = disrupted(&disrupted(&pod, "before"), "now");
        let conditions = marked["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[0]["type"], "Ready");
        assert_eq!(conditions[1]["reason"], "EvictionByEvictionAPI");
        assert_eq!(conditions[1]["lastTransitionTime"], "before");
    }
}
