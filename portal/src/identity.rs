//! Who is calling, and what they may do.

use marina_db::organizations::{Organization, Role};
use marina_db::tokens::TokenScope;
use marina_db::users::User;

use crate::problem::Problem;

/// An authenticated caller, in one organization.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The person.
    pub user: User,
    /// The organization whose things the caller sees.
    pub org: Organization,
    /// What the person may do there.
    pub role: Role,
    /// What the credential allows.
    pub scope: TokenScope,
    /// When the API token that the caller uses expires (Unix ms); `None`: never, or no token.
    pub expires_ms: Option<i64>,
    /// How the audit log names the caller: a login, or `login (token name)`.
    pub actor: String,
    /// Address of origin.
    pub remote: String,
}

/// What an action needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// See clusters.
    Read,
    /// Create, change and delete clusters and node groups, and take kubeconfigs.
    Develop,
    /// See the region's hosts.
    Operate,
}

impl Caller {
    /// Checks a permission.
    ///
    /// # Errors
    /// 403 that says what is missing.
    pub fn may(&self, permission: Permission) -> Result<(), Problem> {
        let develops = matches!(self.role, Role::Owner | Role::Admin | Role::Developer);
        let reads = develops || self.role == Role::Viewer;
        match permission {
            Permission::Read if reads => Ok(()),
            Permission::Develop if develops && self.scope == TokenScope::Write => Ok(()),
            Permission::Operate if self.user.operator => Ok(()),
            Permission::Develop if develops => Err(Problem::forbidden(
                "This API token only reads. Use one with the scope `write`.",
            )),
            Permission::Operate => {
                Err(Problem::forbidden("Only operators of the region see its hosts."))
            }
            Permission::Read | Permission::Develop => Err(Problem::forbidden(format!(
                "Your role in {} is {}; this needs {}.",
                self.org.name,
                self.role,
                if permission == Permission::Read { "viewer" } else { "developer" },
            ))),
        }
    }
}
