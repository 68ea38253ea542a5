//! One call of one webhook.

use admission::webhook::{Answer, Review, Webhook, denied, dry_run_unsupported};
use bytes::Bytes;
use machinery::Status;
use serde_json::Value;

use super::select::Invocation;
use super::version::converted;
use super::{Passing, target};

/// Why a call does not let the request proceed.
pub(super) enum Failure {
    /// The webhook could not be asked or did not answer properly: its failure policy decides.
    Call(String),
    /// It refused.
    Refused(Status),
}

impl Failure {
    /// The answer to the client; `None` when the failure may be ignored.
    pub(super) fn into_status(self, webhook: &Webhook) -> Option<Status> {
        let why = match self {
            Failure::Refused(status) => return Some(status),
            Failure::Call(why) => why,
        };
        let text = format!("failed calling webhook {:?}: {why}", webhook.name);
        if webhook.ignores_failure {
            tracing::warn!(webhook.name = webhook.name, "{text}; the request proceeds");
            return None;
        }
        Some(Status::internal(text))
    }
}

/// Asks a webhook about an object (`None` for deletions), which is in the request's version.
pub(super) async fn ask(
    passing: Passing<'_>,
    webhook: &Webhook,
    invocation: &Invocation,
    object: Option<&Value>,
    mutating: bool,
) -> Result<Answer, Failure> {
    if passing.subject.dry_run && !webhook.allows_dry_run {
        return Err(Failure::Refused(dry_run_unsupported(&webhook.name)));
    }
    let (call, old) = (passing.call, passing.subject.old);
    let object = converted(call, &invocation.row, object).await.map_err(Failure::Refused)?;
    let old = converted(call, &invocation.row, old).await.map_err(Failure::Refused)?;
    let (gvk, gvr) = (&invocation.gvk, &invocation.gvr);
    let review = Review::new(&webhook.versions, passing.asker, gvk, gvr, &object, &old)
        .map_err(Failure::Call)?;
    let reply = post(passing, webhook, review.body())
        .await
        .map_err(|e| Failure::Call(format!("failed to call webhook: {e}")))?;
    let answer = review.answer(&reply, mutating).map_err(Failure::Call)?;
    answer.warnings.iter().for_each(|warning| passing.call.warn(warning));
    match answer.allowed {
        true => Ok(answer),
        false => Err(Failure::Refused(denied(&webhook.name, &answer.result))),
    }
}

async fn post(passing: Passing<'_>, webhook: &Webhook, body: &Value) -> Result<Value, String> {
    let api = &passing.call.api;
    let target = target::of(&api.caches, &webhook.client)?;
    let body = serde_json::to_vec(body).map_err(|e| e.to_string())?;
    target::post(&api.hooks.client, &target, Bytes::from(body), webhook.timeout).await
}
