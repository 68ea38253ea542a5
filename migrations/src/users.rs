//! People with a local account.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::{DbError, Result, conflict, found},
    ids::UserId,
};

/// A person with a local account.
#[derive(Clone, Debug, FromRow)]
pub struct User {
    /// Id.
    pub id: UserId,
    /// What the person types to sign in; unique.
    pub login: String,
    /// Name to show.
    pub display_name: String,
    /// Argon2 hash in PHC text form. Never logged, never shown.
    pub password_hash: String,
    /// May see and run the region: hosts, all tenants.
    pub operator: bool,
    /// May not sign in.
    pub disabled: bool,
    /// Must choose a new password at the next sign-in.
    pub must_change: bool,
    /// Failed sign-ins since the last good one.
    pub failed_logins: i64,
    /// Sign-in is refused before this time (Unix ms).
    pub locked_until_ms: i64,
    /// Unix ms.
    pub created_ms: i64,
}

/// What is needed to make a user.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// What the person types to sign in; unique.
    pub login: String,
    /// Name to show.
    pub display_name: String,
    /// Argon2 hash in PHC text form.
    pub password_hash: String,
    /// May see and run the region.
    pub operator: bool,
    /// Must choose a new password at the next sign-in.
    pub must_change: bool,
}

impl Reader {
    /// A user by id.
    pub async fn user(&mut self, id: &UserId) -> Result<User> {
        let row = sqlx::query_as("SELECT * FROM users WHERE id = $1")
            .bind(id)
            .fetch_optional(self.conn())
            .await?;
        found(row, "user", id.as_str())
    }

    /// A user by login.
    pub async fn user_by_login(&mut self, login: &str) -> Result<User> {
        let row = sqlx::query_as("SELECT * FROM users WHERE login = $1")
            .bind(login)
            .fetch_optional(self.conn())
            .await?;
        found(row, "user", login)
    }

    /// All users by login.
    pub async fn users(&mut self) -> Result<Vec<User>> {
        Ok(sqlx::query_as("SELECT * FROM users ORDER BY login").fetch_all(self.conn()).await?)
    }
}

impl Writer {
    /// Makes a user. Conflict when the login is taken.
    pub async fn create_user(&mut self, new: &NewUser) -> Result<User> {
        let id = UserId::random();
        let now = self.now_ms();
        sqlx::query(
            "INSERT INTO users (id, login, display_name, password_hash, operator, disabled, \
             must_change, failed_logins, locked_until_ms, created_ms) \
             VALUES ($1, $2, $3, $4, $5, 0, $6, 0, 0, $7)",
        )
        .bind(&id)
        .bind(&new.login)
        .bind(&new.display_name)
        .bind(&new.password_hash)
        .bind(i64::from(new.operator))
        .bind(i64::from(new.must_change))
        .bind(now)
        .execute(self.conn())
        .await
        .map_err(|e| conflict(e, "user", &new.login, "this login is taken", ""))?;
        self.user(&id).await
    }

    /// Replaces the password hash; ends all sessions of the user.
    pub async fn set_password(&mut self, id: &UserId, hash: &str, must_change: bool) -> Result<()> {
        let done = sqlx::query(
            "UPDATE users SET password_hash = $2, must_change = $3, failed_logins = 0, \
             locked_until_ms = 0 WHERE id = $1",
        )
        .bind(id)
        .bind(hash)
        .bind(i64::from(must_change))
        .execute(self.conn())
        .await?;
        if done.rows_affected() == 0 {
            return Err(DbError::NotFound { noun: "user", name: id.to_string() });
        }
        self.delete_sessions_of(id).await
    }

    /// Allows or refuses sign-in; refusing ends all sessions.
    pub async fn set_user_disabled(&mut self, id: &UserId, disabled: bool) -> Result<()> {
        sqlx::query("UPDATE users SET disabled = $2 WHERE id = $1")
            .bind(id)
            .bind(i64::from(disabled))
            .execute(self.conn())
            .await?;
        if disabled { self.delete_sessions_of(id).await } else { Ok(()) }
    }

    /// Records the outcome of a sign-in: failures are counted, success resets the count.
    pub async fn record_login(
        &mut self,
        id: &UserId,
        failed_logins: i64,
        locked_until_ms: i64,
    ) -> Result<()> {
        sqlx::query("UPDATE users SET failed_logins = $2, locked_until_ms = $3 WHERE id = $1")
            .bind(id)
            .bind(failed_logins)
            .bind(locked_until_ms)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
