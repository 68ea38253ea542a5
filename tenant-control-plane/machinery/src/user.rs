//! Who sends a request.

use std::collections::BTreeMap;

/// The authenticated user, as `authentication.k8s.io` describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, such as `system:node:worker-1`.
    pub name: String,
    /// Unique identifier, often empty.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// Further facts from the authenticator.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// True when the user is in the group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name if this is a kubelet's identity: user `system:node:<name>` in group
    /// `system:nodes`.
    pub fn node_name(&self) -> Option<&str> {
        let node = self.name.strip_prefix("system:node:")?;
        self.in_group("system:nodes").then_some(node)
    }

    /// Namespace and name if this is a ServiceAccount's identity.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}
