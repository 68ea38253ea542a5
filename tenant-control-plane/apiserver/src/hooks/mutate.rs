//! Mutating webhooks: one after the other, each sees what the ones before it did.

use std::collections::HashSet;

use admission::webhook::{Answer, Webhook};
use machinery::Status;
use serde_json::Value;

use super::call::{Failure, ask};
use super::select::{Invocation, NamespaceLabels, select};
use super::{Hook, Passing, version};

/// What a second round has to know of the first one.
///
/// Source: Kubernetes documentation, "Dynamic Admission Control: Reinvocation policy".
#[derive(Debug, Default)]
pub struct Memory {
    /// Webhooks that want to be called again and have seen the object as it is now.
    up_to_date: HashSet<String>,
    /// Those that want to and have not.
    stale: HashSet<String>,
    /// This is the second round: only webhooks in `stale` are called.
    again: bool,
}

impl Memory {
    /// The object has changed: who has seen it has seen an old one.
    pub fn object_changed(&mut self) {
        self.stale.extend(self.up_to_date.drain());
    }

    /// Begins the second round.
    pub fn begin_again(&mut self) {
        self.again = true;
    }
}

pub(super) async fn run(
    passing: Passing<'_>,
    hooks: &[Hook],
    mut object: Option<&mut Value>,
    memory: &mut Memory,
) -> Result<bool, Status> {
    let labels = NamespaceLabels::default();
    let mut any_changed = false;
    for hook in hooks {
        let (webhook, now) = (&hook.webhook, object.as_deref());
        let Some(invocation) = select(passing, hook, now, &labels).await? else { continue };
        if memory.again && !memory.stale.contains(&webhook.id) {
            continue;
        }
        let asked = ask(passing, webhook, &invocation, now, true).await;
        let patched = match asked {
            Ok(answer) => patched(passing, webhook, &invocation, now, &answer).await,
            Err(failure) => Err(failure),
        };
        match patched {
            Err(failure) => {
                if let Some(status) = failure.into_status(webhook) {
                    return Err(status);
                }
            }
            Ok(Some(changed)) => {
                if let Some(object) = object.as_deref_mut() {
                    *object = changed;
                }
                any_changed = true;
                memory.object_changed();
            }
            Ok(None) => {}
        }
        if webhook.reinvoke {
            memory.up_to_date.insert(webhook.id.clone());
        }
    }
    Ok(any_changed)
}

/// The object with the answer's patch applied; `None` when that changes nothing.
async fn patched(
    passing: Passing<'_>,
    webhook: &Webhook,
    invocation: &Invocation,
    object: Option<&Value>,
    answer: &Answer,
) -> Result<Option<Value>, Failure> {
    let internal = |text: String| Failure::Refused(Status::internal(text));
    match &answer.patch {
        Value::Null => return Ok(None),
        Value::Array(operations) if operations.is_empty() => return Ok(None),
        Value::Array(_) => {}
        _ => {
            return Err(internal(format!(
                "admission webhook {:?} answered with a patch that is not a list of operations",
                webhook.name
            )));
        }
    }
    let Some(object) = object else {
        return Err(internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for \
             this operation",
            webhook.name
        )));
    };
    let own = &passing.call.row;
    let (call, row) = (passing.call, &invocation.row);
    let shown = version::convert(&call.api, own, row, object).await.map_err(Failure::Refused)?;
    let mut new = patch::json_patch(&shown, &answer.patch).map_err(|e| internal(e.to_string()))?;
    if new["kind"] != shown["kind"] || new["apiVersion"] != shown["apiVersion"] {
        return Err(internal(format!(
            "admission webhook {:?} attempted to change the kind of the object",
            webhook.name
        )));
    }
    conform(passing, invocation, &mut new).map_err(internal)?;
    let back = version::convert(&call.api, row, own, &new).await.map_err(Failure::Refused)?;
    Ok((back != *object).then_some(back))
}

/// Brings a patched object into the shape of its kind, defaults included. Custom resources are
/// pruned when the registry settles them, so that a later webhook sees what an earlier one added.
fn conform(
    passing: Passing<'_>,
    invocation: &Invocation,
    object: &mut Value,
) -> Result<(), String> {
    let gvk = &invocation.gvk;
    let built_in = passing.call.api.schema;
    let schema = invocation.row.types.as_deref().unwrap_or(built_in);
    if let Some(ty) = schema.type_of(&gvk.group, &gvk.version, &gvk.kind) {
        schema.check_types(ty, object)?;
        if !invocation.row.custom {
            schema.prune(ty, object);
        }
    }
    match &invocation.row.schema {
        Some(schema) if invocation.row.custom => crate::structural::default(schema, object),
        _ => built_in.apply_defaults(gvk, object),
    }
    Ok(())
}
