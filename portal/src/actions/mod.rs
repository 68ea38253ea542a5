//! What callers can do. The console and the REST API call these and nothing below them.
//!
//! Each change checks its permission, is one transaction, and records itself in the audit log.

pub mod clusters;
pub mod kubeconfig;
pub mod node_groups;
pub mod sign_in;
pub mod tokens;

use marina_db::Writer;
use marina_db::audit::NewAuditEntry;

use crate::identity::Caller;
use crate::problem::Problem;

/// Records a successful action in the same transaction.
pub(crate) async fn audit(
    tx: &mut Writer,
    caller: &Caller,
    action: &str,
    target: String,
    detail: serde_json::Value,
) -> Result<(), Problem> {
    tx.record_audit(&NewAuditEntry {
        org_id: caller.org.id.to_string(),
        actor: caller.actor.clone(),
        remote: caller.remote.clone(),
        action: action.to_owned(),
        target,
        outcome: "ok".to_owned(),
        detail: detail.to_string(),
    })
    .await?;
    Ok(())
}

/// Refuses a change of something that changed since the caller read it. `expected` is the
/// generation in the caller's `If-Match`, if there was one.
pub(crate) fn check_generation(expected: Option<i64>, actual: i64) -> Result<(), Problem> {
    match expected {
        Some(expected) if expected != actual => Err(Problem::precondition_failed(format!(
            "It is at generation {actual}, not {expected}. Read it again and decide anew."
        ))),
        _ => Ok(()),
    }
}

/// The answer to a creation that is sent again with its idempotency key after what it made is gone.
pub(crate) fn made_and_deleted(noun: &str, id: &str) -> Problem {
    Problem::conflict(format!(
        "This Idempotency-Key made {noun} {id}, which was deleted since. Use a new key to make \
         another one."
    ))
}
