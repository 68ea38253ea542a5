//! Roles and bindings.

use machinery::Cause;
use serde_json::Value;

use super::{Hook, Strategy, default_to, immutable};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role and ClusterRole.
pub fn role() -> Strategy {
    Strategy {
        name: machinery::names::path_segment,
        create_on_update: true,
        hook: Hook::Rbac,
        ..Strategy::default()
    }
}

/// RoleBinding and ClusterRoleBinding: the role stays.
pub fn binding() -> Strategy {
    Strategy {
        on_create: |object, _| fill_groups(object),
        on_update: |object, _| fill_groups(object),
        check: check_role,
        ..role()
    }
}

fn fill_groups(object: &mut Value) {
    default_to(&mut object["roleRef"], "apiGroup", GROUP.into());
    for subject in object["subjects"].as_array_mut().into_iter().flatten() {
        if subject["kind"] == "User" || subject["kind"] == "Group" {
            default_to(subject, "apiGroup", GROUP.into());
        }
    }
}

fn check_role(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    old.and_then(|old| immutable("roleRef", &new["roleRef"], &old["roleRef"])).into_iter().collect()
}
