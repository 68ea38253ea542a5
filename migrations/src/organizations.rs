//! Organizations and who belongs to them.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::{Result, conflict, found},
    ids::{OrgId, UserId},
    sql_types::text_enum,
};

text_enum! {
    /// What a member of an organization may do.
    Role("role") {
        /// Everything, including the organization itself.
        Owner = "owner",
        /// Everything but deleting the organization and naming owners.
        Admin = "admin",
        /// Clusters and node groups.
        Developer = "developer",
        /// Reads.
        Viewer = "viewer",
        /// Reads usage and billing.
        Billing = "billing",
    }
}

/// An organization: the owner of clusters.
#[derive(Clone, Debug, FromRow)]
pub struct Organization {
    /// Id.
    pub id: OrgId,
    /// Unique name.
    pub name: String,
    /// Unix ms.
    pub created_ms: i64,
}

/// A user's place in an organization.
#[derive(Clone, Debug, FromRow)]
pub struct Membership {
    /// The organization.
    pub org_id: OrgId,
    /// The user.
    pub user_id: UserId,
    /// What the user may do there.
    pub role: Role,
    /// Unix ms.
    pub created_ms: i64,
}

impl Reader {
    /// An organization by id.
    pub async fn organization(&mut self, id: &OrgId) -> Result<Organization> {
        let row = sqlx::query_as("SELECT * FROM organizations WHERE id = $1")
            .bind(id)
            .fetch_optional(self.conn())
            .await?;
        found(row, "organization", id.as_str())
    }

    /// An organization by name.
    pub async fn organization_by_name(&mut self, name: &str) -> Result<Organization> {
        let row = sqlx::query_as("SELECT * FROM organizations WHERE name = $1")
            .bind(name)
            .fetch_optional(self.conn())
            .await?;
        found(row, "organization", name)
    }

    /// All organizations by name.
    pub async fn organizations(&mut self) -> Result<Vec<Organization>> {
        Ok(sqlx::query_as("SELECT * FROM organizations ORDER BY name")
            .fetch_all(self.conn())
            .await?)
    }

    /// Where a user belongs, oldest first.
    pub async fn memberships_of(&mut self, user: &UserId) -> Result<Vec<Membership>> {
        Ok(sqlx::query_as(
            "SELECT * FROM memberships WHERE user_id = $1 ORDER BY created_ms, org_id",
        )
        .bind(user)
        .fetch_all(self.conn())
        .await?)
    }

    /// Who belongs to an organization, oldest first.
    pub async fn memberships_in(&mut self, org: &OrgId) -> Result<Vec<Membership>> {
        Ok(sqlx::query_as(
            "SELECT * FROM memberships WHERE org_id = $1 ORDER BY created_ms, user_id",
        )
        .bind(org)
        .fetch_all(self.conn())
        .await?)
    }

    /// A user's role in an organization.
    pub async fn role(&mut self, org: &OrgId, user: &UserId) -> Result<Option<Role>> {
        Ok(sqlx::query_scalar("SELECT role FROM memberships WHERE org_id = $1 AND user_id = $2")
            .bind(org)
            .bind(user)
            .fetch_optional(self.conn())
            .await?)
    }
}

impl Writer {
    /// Makes an organization. Conflict when the name is taken.
    pub async fn create_organization(&mut self, name: &str) -> Result<Organization> {
        let id = OrgId::random();
        let now = self.now_ms();
        sqlx::query("INSERT INTO organizations (id, name, created_ms) VALUES ($1, $2, $3)")
            .bind(&id)
            .bind(name)
            .bind(now)
            .execute(self.conn())
            .await
            .map_err(|e| conflict(e, "organization", name, "this name is taken", ""))?;
        self.organization(&id).await
    }

    /// Gives a user a role in an organization, or changes it.
    pub async fn set_role(&mut self, org: &OrgId, user: &UserId, role: Role) -> Result<()> {
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO memberships (org_id, user_id, role, created_ms) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role",
        )
        .bind(org)
        .bind(user)
        .bind(role.as_str())
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| conflict(e, "member", user.as_str(), "", "no such organization or user"))?;
        Ok(())
    }

    /// Ends a membership, with the user's API tokens there.
    pub async fn remove_membership(&mut self, org: &OrgId, user: &UserId) -> Result<()> {
        sqlx::query("DELETE FROM api_tokens WHERE org_id = $1 AND user_id = $2")
            .bind(org)
            .bind(user)
            .execute(self.conn())
            .await?;
        sqlx::query("DELETE FROM memberships WHERE org_id = $1 AND user_id = $2")
            .bind(org)
            .bind(user)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
