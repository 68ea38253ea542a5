//! Kinds that are computed: reviews, the old binding, component statuses.

use std::sync::Arc;

use admission::Operation;
use auth::review;
use http::StatusCode;
use machinery::Status;
use serde_json::{Value, json};

use super::{Call, decode, present, read, sub};
use crate::hooks::Subject;
use crate::http::{Request, Response};
use crate::kinds::Review;

/// Answers a review.
pub async fn handle(
    call: &Arc<Call>,
    kind: Review,
    mut request: Request,
) -> Result<Response, Status> {
    if kind == Review::ComponentStatus {
        return component_status(call).await;
    }
    let gvk = call.gvk();
    let mut body = decode::object(call, &mut request, &gvk).await?;
    let api = &call.api;
    let dry_run = call.query.dry_run()?;
    let subject = Subject { gvk: &gvk, subresource: "", old: None, dry_run, options: None };
    match kind {
        Review::Binding => {
            api.admit_body(call, &subject, Operation::Create, &mut body).await?;
        }
        _ => api.admit_review(call, &subject, &mut body).await?,
    }
    let (user, authorizer) = (&call.user, &*api.authorizer);
    let answer = match kind {
        Review::Token => review::token_review(&api.authenticator, &body)?,
        Review::SelfSubject => review::self_subject_review(user, &body),
        Review::SubjectAccess => review::subject_access_review(authorizer, &body)?,
        Review::SelfSubjectAccess => review::self_subject_access_review(authorizer, user, &body)?,
        Review::SelfSubjectRules => review::self_subject_rules_review(authorizer, user, &body)?,
        Review::LocalSubjectAccess => {
            review::local_subject_access_review(authorizer, &call.info.namespace, &body)?
        }
        Review::Binding => {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            return sub::pod::bind(call, &name, body).await;
        }
        Review::ComponentStatus => Value::Null,
    };
    present::value(call, &answer, StatusCode::CREATED)
}

/// What upstream probes; here only the store is beside this server, and it is asked for its
/// revision.
async fn component_status(call: &Arc<Call>) -> Result<Response, Status> {
    let probe = call.api.store.current_revision().await;
    let condition = match &probe {
        Ok(_) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(e) => json!({"type": "Healthy", "status": "False", "message": e.message}),
    };
    call.warn("v1 ComponentStatus is deprecated in v1.19+");
    let item = json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": "etcd-0"},
        "conditions": [condition],
    });
    match call.info.name.as_str() {
        "" => present::computed(call, &[item]),
        "etcd-0" => {
            present::object(call, item, read::wanted_revision(call)?.unwrap_or(0), StatusCode::OK)
        }
        name => Err(Status::not_found(&call.resource(), name)),
    }
}
