//! May this user do that? The union of the `system:masters` shortcut, the Node authorizer and
//! RBAC: the first to allow decides.

use std::sync::Arc;

use machinery::{ObjectSource, RequestInfo, Status, UserInfo};
use serde_json::Value;

mod node;
mod rbac;
mod references;
mod rules;

pub use rules::Rule;

/// Group whose members may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow {
        /// By what.
        reason: String,
    },
    /// Refused for good.
    Deny {
        /// Why.
        reason: String,
    },
    /// Nothing allows it: refused, unless another authorizer allows it.
    NoOpinion {
        /// Hints, often empty.
        reason: String,
    },
}

impl Decision {
    /// True for [`Decision::Allow`].
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    /// The reason, whatever the answer.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason }
            | Decision::Deny { reason }
            | Decision::NoOpinion { reason } => reason,
        }
    }
}

/// Which authorizers are on (`--authorization-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizerConfig {
    /// `Node`.
    pub node: bool,
    /// `RBAC`.
    pub rbac: bool,
    /// `AlwaysAllow`.
    pub always_allow: bool,
}

impl AuthorizerConfig {
    /// Reads the value of `--authorization-mode`.
    ///
    /// # Errors
    /// When a mode is unknown or not supported.
    pub fn from_modes(modes: &[String]) -> anyhow::Result<Self> {
        let mut config = Self { node: false, rbac: false, always_allow: false };
        for mode in modes {
            match mode.as_str() {
                "Node" => config.node = true,
                "RBAC" => config.rbac = true,
                "AlwaysAllow" => config.always_allow = true,
                "AlwaysDeny" => {}
                other => anyhow::bail!("authorization mode {other} is not supported"),
            }
        }
        Ok(config)
    }
}

/// Decides about requests.
pub struct Authorizer {
    node: Option<node::NodeAuthorizer>,
    rbac: Option<rbac::Rbac>,
    always_allow: bool,
}

impl Authorizer {
    /// An authorizer that reads roles, bindings and pods from the cache.
    pub fn new(config: AuthorizerConfig, source: Arc<dyn ObjectSource>) -> Self {
        Self {
            node: config.node.then(|| node::NodeAuthorizer::new(source.clone())),
            rbac: config.rbac.then(|| rbac::Rbac::new(source)),
            always_allow: config.always_allow,
        }
    }

    /// Decides. Never [`Decision::Deny`] at present: no configured authorizer vetoes.
    pub fn authorize(&self, user: &UserInfo, request: &RequestInfo) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons = Vec::new();
        if let Some(node) = &self.node {
            match node.authorize(user, request) {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        if let Some(rbac) = &self.rbac
            && let Some(reason) = rbac.allows(user, request)
        {
            return Decision::Allow { reason };
        }
        if self.always_allow {
            return Decision::Allow { reason: String::new() };
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    /// [`Self::authorize`], with the refusal as the Status to answer.
    ///
    /// # Errors
    /// 403 with upstream's text.
    pub fn check(&self, user: &UserInfo, request: &RequestInfo) -> Result<(), Status> {
        match self.authorize(user, request) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(forbidden(user, request, &reason))
            }
        }
    }

    /// Every RBAC rule that holds for the user in a namespace (`""`: cluster-wide ones only).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        if user.in_group(MASTERS) || self.always_allow {
            return everything();
        }
        self.rbac.as_ref().map(|rbac| rbac.rules_for(user, namespace)).unwrap_or_default()
    }

    /// The rules behind a binding's `roleRef`, `None` when there is no such role.
    pub(crate) fn role_rules(&self, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
        self.rbac.as_ref()?.role_rules(role_ref, namespace)
    }
}

fn everything() -> Vec<Rule> {
    let any = || vec!["*".to_owned()];
    vec![
        Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() },
        Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() },
    ]
}

/// The 403 for a request that nothing allows.
pub fn forbidden(user: &UserInfo, request: &RequestInfo, reason: &str) -> Status {
    let why = forbidden_message(user, request, reason);
    if request.is_resource_request {
        Status::forbidden(&request.group_resource(), &request.name, &why)
    } else {
        Status::forbidden(&machinery::GroupResource::new("", ""), "", &why)
    }
}

/// Who cannot do what, in upstream's words (clients and people match on them).
pub fn forbidden_message(user: &UserInfo, request: &RequestInfo, reason: &str) -> String {
    let (name, verb) = (&user.name, &request.verb);
    let mut text = if request.is_resource_request {
        let scope = match request.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        format!(
            "User \"{name}\" cannot {verb} resource \"{}\" in API group \"{}\" {scope}",
            request.resource_and_subresource(),
            request.group
        )
    } else {
        format!("User \"{name}\" cannot {verb} path \"{}\"", request.path)
    };
    text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}
