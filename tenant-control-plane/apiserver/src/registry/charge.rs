//! What a new object adds to the ResourceQuotas of its namespace: raised in their status in the
//! transaction that stores the object, so that the two never disagree.
//!
//! A resource that the status does not show yet is left to the controller, which counts what is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use admission::Charge;
use machinery::{Quantity, Status};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::Call;
use crate::store::Write;

/// One creation after the other raises the quotas of a namespace: otherwise all but one of those
/// that come together would have to try again.
#[derive(Default)]
pub struct Turns {
    by_namespace: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits for the turn of these charges; nothing to wait for when there are none.
    pub async fn wait(&self, namespace: &str, charges: &[Charge]) -> Option<OwnedMutexGuard<()>> {
        if charges.is_empty() {
            return None;
        }
        let turn = {
            let mut turns = self.by_namespace.lock().expect("no holder of this lock panics");
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(namespace.to_owned()).or_default().clone()
        };
        Some(turn.lock_owned().await)
    }
}

/// The writes that raise the quotas as they are now in the store.
///
/// # Errors
/// When the store does not answer.
pub async fn writes(call: &Call, charges: &[Charge]) -> Result<Vec<Write>, Status> {
    let mut writes = Vec::new();
    let row = call.api.table.snapshot().find("", "v1", "resourcequotas").cloned();
    let Some(row) = row else { return Ok(writes) };
    for charge in charges {
        let key = row.key(&call.info.namespace, &charge.quota);
        let Some(stored) = call.api.store.get(&key).await? else { continue };
        let mut quota: Value = serde_json::from_slice(&stored.value)
            .map_err(|error| Status::internal(format!("a stored quota is not JSON: {error}")))?;
        if raise(&mut quota, charge) {
            let value = serde_json::to_vec(&quota).expect("a JSON value always serialises");
            writes.push(Write::Put { key, value, expected: stored.mod_revision, lease: 0 });
        }
    }
    Ok(writes)
}

/// True when the status shows any of the amounts.
fn raise(quota: &mut Value, charge: &Charge) -> bool {
    let mut raised = false;
    for (name, amount) in &charge.amounts {
        let used = quota.pointer_mut("/status/used").and_then(|used| used.get_mut(name));
        let Some(used) = used else { continue };
        if let Ok(before) = Quantity::from_json(used) {
            *used = (before + *amount).to_string().into();
            raised = true;
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_shown_is_raised() {
        let one = |names: &[&str]| Charge {
            quota: "q".into(),
            amounts: names.iter().map(|n| ((*n).to_owned(), Quantity::from_units(1))).collect(),
        };
        let mut quota = json!({"status": {"used": {"pods": "2", "cpu": "500m"}}});
        assert!(raise(&mut quota, &one(&["pods", "secrets", "cpu"])));
        assert_eq!(quota["status"]["used"], json!({"pods": "3", "cpu": "1500m"}));
        assert!(!raise(&mut quota, &one(&["secrets"])));
        assert!(!raise(&mut json!({"spec": {}}), &one(&["pods"])));
    }
}
