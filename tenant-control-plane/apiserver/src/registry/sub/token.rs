//! `serviceaccounts/token`.

use std::sync::Arc;

use http::StatusCode;
use machinery::{GroupVersionKind, Reason, Status};

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
    call.api.admit(call, &gvk, "token", None, &mut body, call.query.dry_run()?)?;
    let source = &*call.api.caches;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let answer = issuer.token_request(source, namespace, name, &body, jiff::Timestamp::now())?;
    present::value(call, &answer, StatusCode::CREATED)
}
