//! Nobody gives away permissions that he does not hold: the check for writes to roles and
//! bindings.
//!
//! Source: Kubernetes documentation, "Privilege escalation prevention and bootstrapping". The
//! verbs `escalate` (on roles) and `bind` (on the bound role) lift it.

use std::collections::BTreeSet;

use machinery::{GroupResource, RequestInfo, Status, UserInfo};
use serde_json::Value;

use crate::authz::{Authorizer, MASTERS, Rule};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a create, update or patch of a Role, ClusterRole, RoleBinding or ClusterRoleBinding;
/// for every other resource the answer is yes. `old` is the stored object in an update, `new` what
/// is to be stored.
///
/// # Errors
/// 403 that lists the permissions the user lacks; 404 when a binding names no existing role.
pub fn check(
    authorizer: &Authorizer,
    user: &UserInfo,
    request: &RequestInfo,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    let writes = matches!(request.verb.as_str(), "create" | "update" | "patch");
    if request.group != GROUP || !writes || user.in_group(MASTERS) {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or(&request.name);
    match request.resource.as_str() {
        "roles" | "clusterroles" => check_role(authorizer, user, request, old, new, name),
        "rolebindings" | "clusterrolebindings" => {
            check_binding(authorizer, user, request, old, new, name)
        }
        _ => Ok(()),
    }
}

fn check_role(
    authorizer: &Authorizer,
    user: &UserInfo,
    request: &RequestInfo,
    old: Option<&Value>,
    new: &Value,
    name: &str,
) -> Result<(), Status> {
    let unchanged = old.is_some_and(|old| {
        old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]
    });
    let escalate = RequestInfo { verb: "escalate".into(), name: name.into(), ..base(request) };
    if unchanged || authorizer.authorize(user, &escalate).is_allowed() {
        return Ok(());
    }
    let aggregates = |role: &Value| !role["aggregationRule"].is_null();
    if aggregates(new) && old.is_none_or(|old| old["aggregationRule"] != new["aggregationRule"]) {
        // What an aggregated role will hold is open: only who holds everything may write one.
        let any = || vec!["*".to_owned()];
        let everything =
            Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() };
        let paths = Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() };
        confirm(authorizer, user, request, &[everything, paths], name)?;
    }
    confirm(authorizer, user, request, &Rule::all_of(new), name)
}

fn check_binding(
    authorizer: &Authorizer,
    user: &UserInfo,
    request: &RequestInfo,
    old: Option<&Value>,
    new: &Value,
    name: &str,
) -> Result<(), Status> {
    let unchanged = old
        .is_some_and(|old| old["roleRef"] == new["roleRef"] && old["subjects"] == new["subjects"]);
    if unchanged {
        return Ok(());
    }
    let role = &new["roleRef"];
    let role_name = role["name"].as_str().unwrap_or_default();
    let resource = if role["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
    let bind = RequestInfo {
        verb: "bind".into(),
        resource: resource.into(),
        name: role_name.into(),
        ..base(request)
    };
    if authorizer.authorize(user, &bind).is_allowed() {
        return Ok(());
    }
    let rules = authorizer
        .role_rules(role, &request.namespace)
        .ok_or_else(|| Status::not_found(&GroupResource::new(GROUP, resource), role_name))?;
    confirm(authorizer, user, request, &rules, name)
}

fn base(request: &RequestInfo) -> RequestInfo {
    RequestInfo {
        is_resource_request: true,
        subresource: String::new(),
        label_selector: String::new(),
        field_selector: String::new(),
        ..request.clone()
    }
}

fn confirm(
    authorizer: &Authorizer,
    user: &UserInfo,
    request: &RequestInfo,
    wanted: &[Rule],
    name: &str,
) -> Result<(), Status> {
    let held = authorizer.rules_for(user, &request.namespace);
    let missing: BTreeSet<String> = wanted
        .iter()
        .flat_map(Rule::singles)
        .filter(|single| !held.iter().any(|rule| rule.covers_single(single)))
        .map(|single| describe(&single))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<_> = user.groups.iter().map(|g| format!("\"{g}\"")).collect();
    let why = format!(
        "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        missing.into_iter().collect::<Vec<_>>().join("\n")
    );
    Err(Status::forbidden(&request.group_resource(), name, &why))
}

fn describe(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (label, list) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            let quoted: Vec<_> = list.iter().map(|item| format!("\"{item}\"")).collect();
            parts.push(format!("{label}:[{}]", quoted.join(" ")));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
