//! Parameters of policies: objects that a binding names or selects.

use std::sync::Arc;

use machinery::LabelSelector;
use serde_json::Value;

use crate::cache::Filter;
use crate::convert::webhook;
use crate::kinds::Row;
use crate::registry::Call;
use crate::registry::present::row_version;

/// The row of a policy's `paramKind`; `None` when it has none.
pub(super) fn kind(
    call: &Call,
    param_kind: Option<&(String, String)>,
) -> Result<Option<Arc<Row>>, String> {
    let Some((api_version, kind)) = param_kind else { return Ok(None) };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let table = call.api.table.snapshot();
    let row = table.find_kind(group, version, kind).filter(|row| row.prefix.is_some()).cloned();
    row.map(Some).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
    })
}

/// The parameters that a binding's `paramRef` means in a request's namespace: the object
/// is judged once for each, and not at all without any. A policy without parameters judges once,
/// with null.
pub(super) async fn collect(
    call: &Call,
    row: Option<&Row>,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let Some(row) = row.filter(|_| reference.is_object()) else { return Ok(vec![Value::Null]) };
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let space = match (row.namespaced, text("namespace")) {
        (false, "") => None,
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                .to_owned());
        }
        (true, "") if namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches \
                        cluster-scoped resources"
                .to_owned());
        }
        (true, "") => Some(namespace),
        (true, given) => Some(given),
    };
    let cache = call.api.caches.of(row).ok_or_else(|| {
        format!("paramKind kind `{}` not yet synced to use for admission", row.kind)
    })?;
    let mut found: Vec<_> = match text("name") {
        "" => {
            let labels =
                LabelSelector::from_json(&reference["selector"]).map_err(|e| e.to_string())?;
            let mut filter = Filter::all(space);
            filter.labels = labels;
            cache.list(&filter, None, 0, 0).objects
        }
        name => {
            let key = space.map_or_else(|| name.to_owned(), |space| format!("{space}/{name}"));
            cache.get(&key).into_iter().collect()
        }
    };
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    webhook::objects(&call.api, row, &mut found).await.map_err(|status| status.message)?;
    Ok(found.iter().map(|object| row_version(row, object)).collect())
}
