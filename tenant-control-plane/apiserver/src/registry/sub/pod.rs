//! Pods: binding to a node.

use std::sync::Arc;

use admission::Operation;
use http::StatusCode;
use machinery::{Cause, GroupVersionKind, Status};
use serde_json::{Value, json};

use crate::hooks::Subject;
use crate::http::{Request, Response, respond};
use crate::kinds::Row;
use crate::registry::write::{Part, change};
use crate::registry::{Call, decode, no_resource};
use crate::strategy::{cause, child};

/// `POST pods/<name>/binding`.
pub async fn binding(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let gvk =
        GroupVersionKind { group: String::new(), version: "v1".into(), kind: "Binding".into() };
    let mut body = decode::object(call, &mut request, &gvk).await?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() && name != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let subject = Subject {
        gvk: &gvk,
        subresource: "binding",
        old: None,
        dry_run: call.query.dry_run()?,
        options: None,
    };
    call.api.admit_body(call, &subject, Operation::Create, &mut body).await?;
    bind(call, &call.info.name.clone(), body).await
}

fn pods(call: &Call) -> Result<Arc<Row>, Status> {
    call.api.table.snapshot().find("", "v1", "pods").cloned().ok_or_else(no_resource)
}

/// Assigns a pod to a node, once and for all.
pub async fn bind(call: &Arc<Call>, pod: &str, body: Value) -> Result<Response, Status> {
    let mut pod_call = call.about(&call.info.namespace, pod);
    pod_call.row = pods(call)?;
    let target = &body["target"];
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    let mut causes: Vec<Cause> = Vec::new();
    if node.is_empty() {
        causes.push(cause("FieldValueRequired", "target.name", "Required value"));
    }
    if !matches!(target["kind"].as_str().unwrap_or_default(), "" | "Node") {
        let text = format!(
            "Unsupported value: {}: supported values: \"Node\", \"<empty>\"",
            target["kind"]
        );
        causes.push(cause("FieldValueNotSupported", "target.kind", text));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("", "Binding", pod, causes));
    }
    let dry_run = call.query.dry_run()?;
    let uid = body["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let now = call.now.clone();
    change(&pod_call, Part::Computed("binding"), dry_run, |old| {
        assign(&pod_call, old, &body, &node, &uid, &now)
    })
    .await?;
    let created = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(respond::json(StatusCode::CREATED, &created))
}

fn assign(
    call: &Call,
    old: &Value,
    body: &Value,
    node: &str,
    uid: &str,
    now: &str,
) -> Result<Value, Status> {
    let refuse = |why: String| Err(Status::conflict(&call.resource(), &call.info.name, &why));
    let known = old["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != known {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {known}"
        ));
    }
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let name = &call.info.name;
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let current = old["spec"]["nodeName"].as_str().unwrap_or_default();
    if !current.is_empty() {
        let name = &call.info.name;
        return refuse(format!("pod {name} is already assigned to node {current:?}"));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        let name = &call.info.name;
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    for (key, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
        child(&mut new["metadata"], "annotations")[key] = value.clone();
    }
    set_condition(&mut new, "PodScheduled", None, now);
    Ok(new)
}

/// Sets a condition to True, with reason and message if there are any. One that was true already
/// keeps its time.
pub(super) fn set_condition(pod: &mut Value, kind: &str, why: Option<(&str, &str)>, now: &str) {
    let status = child(pod, "status");
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let before = conditions.iter().find(|c| c["type"] == kind && c["status"] == "True");
    let since = before.map_or_else(|| now.into(), |c| c["lastTransitionTime"].clone());
    let mut condition = json!({
        "type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": since,
    });
    if let Some((reason, message)) = why {
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    conditions.retain(|c| c["type"] != kind);
    conditions.push(condition);
    status["conditions"] = conditions.into();
}
