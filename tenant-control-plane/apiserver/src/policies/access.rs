//! Nobody reads through a policy what he may not read himself: who writes a policy with parameters
//! must be allowed to get all objects of their kind, and who binds it the parameters themselves.
//!
//! Source: Kubernetes documentation, "Validating Admission Policy: Parameter resources"; upstream's
//! strategies of both kinds.

use machinery::{RequestInfo, Status};
use serde_json::Value;

use crate::registry::Call;
use crate::strategy::cause;

const GROUP: &str = "admissionregistration.k8s.io";

/// Checks a policy or a binding that is about to be written over `old`.
///
/// # Errors
/// 422 that names the field which refers to what the user may not read.
pub fn check(call: &Call, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let refused = match call.row.plural.as_ref() {
        "validatingadmissionpolicies" => kind_refused(call, old, new),
        _ => param_refused(call, old, new),
    };
    let Some((field, why)) = refused else { return Ok(()) };
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    Err(call.invalid(name, vec![cause("FieldValueForbidden", field, format!("Forbidden: {why}"))]))
}

type Refused = Option<(&'static str, String)>;

fn kind_refused(call: &Call, old: Option<&Value>, new: &Value) -> Refused {
    let kind = &new["spec"]["paramKind"];
    if !kind.is_object() || old.is_some_and(|old| old["spec"]["paramKind"] == *kind) {
        return None;
    }
    let asked = RequestInfo { name: "*".into(), namespace: "*".into(), ..read(call, kind, "get") };
    let text = |key: &str| kind[key].as_str().unwrap_or_default();
    refused(call, &asked).then(|| {
        let why = format!(
            "user {:?} must have \"get\" permission on all objects of the referenced paramKind \
             (kind={}, apiVersion={})",
            call.user.name,
            text("kind"),
            text("apiVersion")
        );
        ("spec.paramKind", why)
    })
}

fn param_refused(call: &Call, old: Option<&Value>, new: &Value) -> Refused {
    let reference = &new["spec"]["paramRef"];
    let policy = &new["spec"]["policyName"];
    let is_old =
        |old: &Value| old["spec"]["paramRef"] == *reference && old["spec"]["policyName"] == *policy;
    if !reference.is_object() || old.is_some_and(is_old) {
        return None;
    }
    let policies = machinery::GroupResource::new(GROUP, "validatingadmissionpolicies");
    let policy = policy.as_str().unwrap_or_default();
    let policy = machinery::ObjectSource::get(&*call.api.caches, &policies, "", policy);
    let kind = policy.map(|policy| policy["spec"]["paramKind"].clone()).unwrap_or_default();
    let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
    let verb = if text("name").is_empty() { "list" } else { "get" };
    let asked =
        RequestInfo { name: text("name"), namespace: text("namespace"), ..read(call, &kind, verb) };
    refused(call, &asked).then(|| {
        let why = format!(
            "user {:?} does not have {verb:?} permission on the object referenced by paramRef",
            call.user.name
        );
        ("spec.paramRef", why)
    })
}

/// Reading objects of a kind; of all kinds when it is not known.
fn read(call: &Call, kind: &Value, verb: &str) -> RequestInfo {
    let text = |key: &str| kind[key].as_str().unwrap_or_default();
    let any = || "*".to_owned();
    let (group, version) = match text("apiVersion").split('/').collect::<Vec<_>>()[..] {
        [version] if !version.is_empty() => (String::new(), version.to_owned()),
        [group, version] => (group.to_owned(), version.to_owned()),
        _ => (any(), any()),
    };
    let table = call.api.table.snapshot();
    let row = table.find_kind(&group, &version, text("kind")).filter(|row| row.prefix.is_some());
    RequestInfo {
        is_resource_request: true,
        verb: verb.to_owned(),
        resource: row.map_or_else(any, |row| row.plural.to_string()),
        group,
        version,
        ..RequestInfo::default()
    }
}

fn refused(call: &Call, asked: &RequestInfo) -> bool {
    !call.api.authorizer.authorize(&call.user, asked).is_allowed()
}
