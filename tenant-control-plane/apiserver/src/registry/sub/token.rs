//! `serviceaccounts/token`.

use std::sync::Arc;

use admission::Operation;
use http::StatusCode;
use machinery::{GroupVersionKind, Reason, Status};

use crate::hooks::Subject;
use crate::http::{Request, Response};
use crate::registry::{Call, decode, present};

/// Issues a token.
pub async fn issue(call: &Arc<Call>, mut request: Request) -> Result<Response, Status> {
    let gvk = GroupVersionKind {
        group: "authentication.k8s.io".into(),
        version: "v1".into(),
        kind: "TokenRequest".into(),
    };
    let mut body = decode::object(call, &mut request, &gvk).await?;
    call.api.schema.apply_defaults(&gvk, &mut body);
    let Some(issuer) = &call.api.issuer else {
        return Err(Status::new(
            Reason::NotImplemented,
            "this server has no key to sign tokens with",
        ));
    };
    // The account and what the token is bound to must be as current as the request.
    call.api.caches.catch_up().await?;
    let subject = Subject {
        gvk: &gvk,
        subresource: "token",
        old: None,
        dry_run: call.query.dry_run()?,
        options: None,
    };
    call.api.admit(call, &subject, &mut body).await?;
    call.api.policies.validate(call, &subject, Operation::Create, Some(&body)).await?;
    call.api.hooks.validate(call, &subject, Operation::Create, Some(&body)).await?;
    let source = &*call.api.caches;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let answer = issuer.token_request(source, namespace, name, &body, jiff::Timestamp::now())?;
    present::value(call, &answer, StatusCode::CREATED)
}
