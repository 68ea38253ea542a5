//! What the writer of some kinds has to be permitted beside the write itself.

use machinery::Status;
use serde_json::Value;

use super::Call;
use crate::policies::access;
use crate::strategy::Hook;

/// Checks an object that is about to be stored over `old`.
///
/// # Errors
/// When the object would give its writer, or others, more than the writer has.
pub fn check(call: &Call, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    match call.row.strategy.hook {
        Hook::Rbac => {
            auth::escalation::check(&call.api.authorizer, &call.user, &call.info, old, new)
        }
        Hook::Params => access::check(call, old, new),
        Hook::Service | Hook::None => Ok(()),
    }
}
