//! Subresources. One that only restricts what a write may change goes through `write` and `patch`
//! like the kind itself.

pub mod connect;
pub mod eviction;
pub mod pod;
pub mod resize;
pub mod scale;
pub mod token;

use std::sync::Arc;

use machinery::Status;

use super::write::{self, Part};
use super::{Call, method_not_allowed, patch, read};
use crate::http::{Request, Response};
use crate::kinds::Action;

/// Answers a request on a subresource whose verb is allowed.
pub async fn handle(
    call: &Arc<Call>,
    action: Action,
    request: Request,
) -> Result<Response, Status> {
    match action {
        Action::Status => part(call, request, Part::Status).await,
        Action::Approval => part(call, request, Part::Approval).await,
        Action::Finalize => part(call, request, Part::Finalize).await,
        Action::EphemeralContainers => part(call, request, Part::EphemeralContainers).await,
        Action::Resize => part(call, request, Part::Resize).await,
        Action::Scale => scale::handle(call, request).await,
        Action::Binding => pod::binding(call, request).await,
        Action::Eviction => eviction::evict(call, request).await,
        Action::Token => token::issue(call, request).await,
        Action::Log | Action::Exec | Action::Attach | Action::PortForward | Action::Proxy => {
            connect::connect(call, action, request).await
        }
    }
}

async fn part(call: &Arc<Call>, request: Request, part: Part) -> Result<Response, Status> {
    match call.info.verb.as_str() {
        "get" => read::get(call).await,
        "update" => write::update(call, request, part).await,
        "patch" => patch::patch(call, request, part).await,
        _ => Err(method_not_allowed()),
    }
}
