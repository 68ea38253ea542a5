//! Role-based access control, compiled.
//!
//! Roles and bindings are turned into an index from subject to grants; the index is kept until
//! the generation of one of the four resources changes. A decision is then one look-up per group
//! of the user. Source: Kubernetes documentation, "Using RBAC Authorization".

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use machinery::{GroupResource, ObjectSource, RequestInfo, UserInfo};
use serde_json::Value;

use super::rules::Rule;

const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// What one binding gives to one subject.
#[derive(Clone)]
struct Grant {
    /// `ClusterRoleBinding "x" of ClusterRole "y"`.
    origin: Arc<str>,
    rules: Arc<[Rule]>,
}

type Grants = HashMap<Subject, Vec<Grant>>;

#[derive(Default)]
struct Compiled {
    generations: [u64; 4],
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
}

pub(super) struct Rbac {
    source: Arc<dyn ObjectSource>,
    resources: [GroupResource; 4],
    compiled: RwLock<Option<Arc<Compiled>>>,
}

impl Rbac {
    pub(super) fn new(source: Arc<dyn ObjectSource>) -> Self {
        let resources = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"]
            .map(|resource| GroupResource::new(GROUP, resource));
        Self { source, resources, compiled: RwLock::new(None) }
    }

    /// The reason for allowing, or `None` when no binding grants it.
    pub(super) fn allows(&self, user: &UserInfo, request: &RequestInfo) -> Option<String> {
        let compiled = self.compiled();
        let mut allowed = None;
        visit(&compiled, user, &request.namespace, |subject, grant| {
            if grant.rules.iter().any(|rule| rule.allows(request)) {
                allowed = Some(reason(subject, grant));
            }
            allowed.is_none()
        });
        allowed
    }

    /// Every rule that holds for the user in the namespace (cluster-wide ones included; those
    /// alone when the namespace is empty).
    pub(super) fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        visit(&self.compiled(), user, namespace, |_, grant| {
            rules.extend(grant.rules.iter().cloned());
            true
        });
        rules
    }

    /// The rules behind a `roleRef`, or `None` when there is no such role.
    pub(super) fn role_rules(&self, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
        let name = role_ref["name"].as_str()?;
        let role = match role_ref["kind"].as_str()? {
            "ClusterRole" => self.source.get(&self.resources[0], "", name)?,
            "Role" => self.source.get(&self.resources[2], namespace, name)?,
            _ => return None,
        };
        Some(Rule::all_of(&role))
    }

    fn compiled(&self) -> Arc<Compiled> {
        let generations = [0, 1, 2, 3].map(|i| self.source.generation(&self.resources[i]));
        let current = self.compiled.read().expect("no holder of this lock panics").clone();
        if let Some(compiled) = current
            && compiled.generations == generations
        {
            return compiled;
        }
        let compiled = Arc::new(self.compile(generations));
        *self.compiled.write().expect("no holder of this lock panics") = Some(compiled.clone());
        compiled
    }

    fn compile(&self, generations: [u64; 4]) -> Compiled {
        let [cluster_roles, roles] = [0, 2].map(|i| self.roles(&self.resources[i]));
        let mut compiled = Compiled { generations, ..Compiled::default() };
        for binding in self.source.list(&self.resources[1], None) {
            let Some(role) = role_of(&binding, &cluster_roles, None) else { continue };
            add(&mut compiled.cluster, &binding, "ClusterRoleBinding", "", role);
        }
        for binding in self.source.list(&self.resources[3], None) {
            let namespace = text(&binding["metadata"]["namespace"]);
            let Some(role) = role_of(&binding, &cluster_roles, Some((&roles, namespace))) else {
                continue;
            };
            let grants = compiled.namespaces.entry(namespace.to_owned()).or_default();
            add(grants, &binding, "RoleBinding", namespace, role);
        }
        compiled
    }

    fn roles(&self, resource: &GroupResource) -> Roles {
        let roles = self.source.list(resource, None);
        let key = |role: &Value| {
            let meta = &role["metadata"];
            (text(&meta["namespace"]).to_owned(), text(&meta["name"]).to_owned())
        };
        roles.iter().map(|role| (key(role), Rule::all_of(role).into())).collect()
    }
}

/// Rules by namespace and name.
type Roles = HashMap<(String, String), Arc<[Rule]>>;

fn role_of(
    binding: &Value,
    cluster_roles: &Roles,
    roles: Option<(&Roles, &str)>,
) -> Option<Arc<[Rule]>> {
    let name = text(&binding["roleRef"]["name"]).to_owned();
    match (text(&binding["roleRef"]["kind"]), roles) {
        ("ClusterRole", _) => cluster_roles.get(&(String::new(), name)).cloned(),
        ("Role", Some((roles, namespace))) => roles.get(&(namespace.to_owned(), name)).cloned(),
        _ => None,
    }
}

fn add(grants: &mut Grants, binding: &Value, kind: &str, namespace: &str, rules: Arc<[Rule]>) {
    let name = text(&binding["metadata"]["name"]);
    let shown = if namespace.is_empty() { name.into() } else { format!("{name}/{namespace}") };
    let role = &binding["roleRef"];
    let origin: Arc<str> =
        format!("{kind} \"{shown}\" of {} \"{}\"", text(&role["kind"]), text(&role["name"])).into();
    for subject in binding["subjects"].as_array().into_iter().flatten() {
        let name = text(&subject["name"]).to_owned();
        let subject = match text(&subject["kind"]) {
            "User" => Subject::User(name),
            "Group" => Subject::Group(name),
            "ServiceAccount" => {
                let of = match text(&subject["namespace"]) {
                    "" => namespace,
                    of => of,
                };
                if of.is_empty() {
                    continue;
                }
                Subject::User(format!("system:serviceaccount:{of}:{name}"))
            }
            _ => continue,
        };
        let grant = Grant { origin: origin.clone(), rules: rules.clone() };
        grants.entry(subject).or_default().push(grant);
    }
}

/// Calls `each` for every grant of the user until it returns false; cluster-wide grants first.
fn visit(
    compiled: &Compiled,
    user: &UserInfo,
    namespace: &str,
    mut each: impl FnMut(&Subject, &Grant) -> bool,
) {
    let subjects: Vec<_> = std::iter::once(Subject::User(user.name.clone()))
        .chain(user.groups.iter().cloned().map(Subject::Group))
        .collect();
    let local = (!namespace.is_empty()).then(|| compiled.namespaces.get(namespace)).flatten();
    for grants in std::iter::once(&compiled.cluster).chain(local) {
        for subject in &subjects {
            for grant in grants.get(subject).into_iter().flatten() {
                if !each(subject, grant) {
                    return;
                }
            }
        }
    }
}

fn reason(subject: &Subject, grant: &Grant) -> String {
    let subject = match subject {
        Subject::Group(name) => format!("Group \"{name}\""),
        Subject::User(name) => match name.strip_prefix("system:serviceaccount:") {
            Some(account) => match account.split_once(':') {
                Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
                None => format!("User \"{name}\""),
            },
            None => format!("User \"{name}\""),
        },
    };
    format!("RBAC: allowed by {} to {subject}", grant.origin)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
