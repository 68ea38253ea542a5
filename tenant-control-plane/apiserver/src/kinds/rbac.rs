//! `rbac.authorization.k8s.io`.

use super::row::{Rows, cluster, namespaced};
use crate::strategy::rbac;

pub(super) fn rows() -> Rows {
    Rows::of(
        "rbac.authorization.k8s.io",
        "v1",
        vec![
            cluster("ClusterRoleBinding", "clusterrolebindings").strategy(rbac::binding()),
            cluster("ClusterRole", "clusterroles").strategy(rbac::role()),
            namespaced("RoleBinding", "rolebindings").strategy(rbac::binding()),
            namespaced("Role", "roles").strategy(rbac::role()),
        ],
    )
}
