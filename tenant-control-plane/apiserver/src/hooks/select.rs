//! Which webhooks a request concerns, and in which version of the resource.

use std::sync::Arc;

use admission::Operation;
use admission::rule::{Asked, Rule};
use admission::webhook::Asker;
use expressions::Inputs;
use machinery::{
    GroupResource, GroupVersionKind, GroupVersionResource, LabelSelector, ObjectSource, Status,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::conditions::{authorizer, evaluating};
use super::{Hook, Passing, version};
use crate::kinds::Row;
use crate::registry::Call;

/// A webhook is to be called, about this version of the resource.
#[derive(Clone)]
pub(crate) struct Invocation {
    /// The row of the version; the request's own unless the rule names another.
    pub row: Arc<Row>,
    /// The resource in that version.
    pub gvr: GroupVersionResource,
    /// The kind in that version.
    pub gvk: GroupVersionKind,
}

/// The labels of the request's namespace, looked up when the first selector asks for them.
#[derive(Default)]
pub(crate) struct NamespaceLabels(OnceCell<Value>);

/// Whether to call a webhook; `None`: no.
pub(super) async fn select(
    passing: Passing<'_>,
    hook: &Hook,
    object: Option<&Value>,
    labels: &NamespaceLabels,
) -> Result<Option<Invocation>, Status> {
    let (webhook, asked) = (&hook.webhook, asked(passing.asker));
    let invocation = invocation(passing, &webhook.rules, webhook.equivalent, &asked);
    let Some(invocation) = invocation else { return Ok(None) };
    let in_namespace =
        in_selected_namespace(passing.call, &asked, object, &webhook.namespaces, labels).await?;
    let old = passing.subject.old;
    let selected = in_namespace
        && object_selected(&webhook.objects, object, old)?
        && meets_conditions(passing, hook, &invocation, object).await?;
    Ok(selected.then_some(invocation))
}

/// What rules look at.
pub(crate) fn asked<'a>(asker: &Asker<'a>) -> Asked<'a> {
    Asked {
        operation: asker.operation,
        gvr: asker.gvr,
        subresource: asker.subresource,
        namespace: asker.namespace,
        name: asker.name,
    }
}

/// True when all conditions hold. One that cannot be decided is up to the failure policy.
async fn meets_conditions(
    passing: Passing<'_>,
    hook: &Hook,
    invocation: &Invocation,
    object: Option<&Value>,
) -> Result<bool, Status> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let object = version::converted(passing.call, &invocation.row, object).await?;
    let old = version::converted(passing.call, &invocation.row, passing.subject.old).await?;
    let request = passing.asker.request(&invocation.gvk, &invocation.gvr);
    let mut inputs = Inputs::new()
        .with("object", &object)
        .with("oldObject", &old)
        .with("request", &request)
        .with_authorizer(&authorizer(passing.call), &passing.call.info);
    let long = hook.conditions.may_take_long();
    match evaluating(long, || hook.conditions.decide(&mut inputs)) {
        Ok(decided) => Ok(decided),
        Err(_) if hook.webhook.ignores_failure => Ok(false),
        Err(why) => Err(Status::forbidden(&passing.call.resource(), passing.asker.name, &why)),
    }
}

/// The version of the resource that the rules name: the request's own if one of them does, else
/// any other version of the same resource.
pub(crate) fn invocation(
    passing: Passing<'_>,
    rules: &[Rule],
    equivalent: bool,
    asked: &Asked<'_>,
) -> Option<Invocation> {
    let asker = passing.asker;
    if rules.iter().any(|rule| rule.matches(asked)) {
        let (row, gvr, gvk) = (passing.call.row.clone(), asker.gvr.clone(), asker.gvk.clone());
        return Some(Invocation { row, gvr, gvk });
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let others = version::equivalents(passing.call);
    rules.iter().find_map(|rule| {
        others.iter().find_map(|row| {
            let gvr = version::gvr(row);
            let matches = rule.matches(&Asked { gvr: &gvr, ..*asked });
            let gvk = version::gvk_in(row, &passing.call.row, asker.gvk);
            matches.then(|| Invocation { row: row.clone(), gvr, gvk })
        })
    })
}

/// True when the selector selects the request's namespace. Requests outside of namespaces are
/// selected always.
pub(crate) async fn in_selected_namespace(
    call: &Call,
    asked: &Asked<'_>,
    object: Option<&Value>,
    selector: &Result<LabelSelector, String>,
    labels: &NamespaceLabels,
) -> Result<bool, Status> {
    let selector = selector.as_ref().map_err(Status::internal)?;
    if asked.namespace.is_empty() || selector.is_everything() {
        return Ok(true);
    }
    // Of a namespace that is being written, the labels are the new ones, which webhooks may change.
    let is_namespace = asked.gvr.group.is_empty() && asked.gvr.resource == "namespaces";
    let writes = matches!(asked.operation, Operation::Create | Operation::Update);
    if is_namespace && writes && asked.subresource.is_empty() {
        return Ok(selector.matches_labels(&object.unwrap_or(&Value::Null)["metadata"]["labels"]));
    }
    let labels = labels.0.get_or_try_init(|| namespace_labels(call, asked)).await?;
    Ok(selector.matches_labels(labels))
}

async fn namespace_labels(call: &Call, asked: &Asked<'_>) -> Result<Value, Status> {
    let namespace = namespace(call, asked.namespace).await?;
    Ok(namespace["metadata"]["labels"].clone())
}

/// The namespace, even if it was made a moment ago by another server.
pub(crate) async fn namespace(call: &Call, name: &str) -> Result<Arc<Value>, Status> {
    let namespaces = GroupResource::new("", "namespaces");
    let caches = &call.api.caches;
    if let Some(found) = ObjectSource::get(&**caches, &namespaces, "", name) {
        return Ok(found);
    }
    caches.catch_up().await?;
    ObjectSource::get(&**caches, &namespaces, "", name)
        .ok_or_else(|| Status::not_found(&namespaces, name))
}

/// True when the selector selects the object as it is to be or as it was.
pub(crate) fn object_selected(
    selector: &Result<LabelSelector, String>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<bool, Status> {
    let selector = selector.as_ref().map_err(Status::internal)?;
    let selects = |object: Option<&Value>| object.is_some_and(|o| selector.matches_object(o));
    Ok(selector.is_everything() || selects(object) || selects(old))
}
