//! Validating webhooks: all at once, because none of them changes anything.

use machinery::Status;
use serde_json::Value;

use super::call::ask;
use super::select::{NamespaceLabels, select};
use super::{Hook, Passing};

pub(super) async fn run(
    passing: Passing<'_>,
    hooks: &[Hook],
    object: Option<&Value>,
) -> Result<(), Status> {
    let labels = NamespaceLabels::default();
    let mut concerned = Vec::new();
    for hook in hooks {
        if let Some(invocation) = select(passing, hook, object, &labels).await? {
            concerned.push((&hook.webhook, invocation));
        }
    }
    let calls = concerned.iter().map(|(webhook, invocation)| async move {
        let asked = ask(passing, webhook, invocation, object, false).await;
        asked.err().and_then(|failure| failure.into_status(webhook))
    });
    let refusals = futures::future::join_all(calls).await;
    refusals.into_iter().flatten().next().map_or(Ok(()), Err)
}
