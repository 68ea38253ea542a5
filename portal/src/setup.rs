//! First run: an organization, an administrator, and how to sign in.

use anyhow::Context;
use marina_db::organizations::Role;
use marina_db::seal::Sealer;
use marina_db::users::NewUser;
use marina_db::{Db, DbError};

use crate::flags::SetupFlags;
use crate::password;

/// Login of the first account.
pub const ADMIN: &str = "admin";
/// Name of the first organization.
pub const ORGANIZATION: &str = "default";

/// Makes what is missing and prints what the operator has to know. Running it again changes nothing.
pub(crate) async fn run(flags: SetupFlags) -> anyhow::Result<()> {
    let (database, key) = (&flags.database, &flags.secret_key_file);
    if !key.exists() {
        Sealer::create_key_file(key).context("cannot make the secret key file")?;
    }
    let db =
        Db::open(database).await.with_context(|| format!("--database {}", database.display()))?;
    match first_run(&db, flags.reset_admin_password).await? {
        Some(password) => println!("login: {ADMIN}\none-time password: {password}"),
        None if db.read().await?.user_by_login(ADMIN).await?.must_change => {
            println!("the account {ADMIN} exists; its one-time password was not used yet");
        }
        None => println!("the account {ADMIN} exists and has a password of its own"),
    }
    Ok(())
}

/// Makes the organization and the administrator. Returns the one-time password if it made one.
pub async fn first_run(db: &Db, reset: bool) -> anyhow::Result<Option<String>> {
    let password = password::one_time();
    let hash = password::hash(password.clone()).await.map_err(|p| anyhow::anyhow!(p.detail))?;
    let mut tx = db.write().await?;
    let org = match tx.organization_by_name(ORGANIZATION).await {
        Err(DbError::NotFound { .. }) => tx.create_organization(ORGANIZATION).await?,
        other => other?,
    };
    let made = match tx.user_by_login(ADMIN).await {
        Err(DbError::NotFound { .. }) => {
            let new = NewUser {
                login: ADMIN.to_owned(),
                display_name: "Administrator".to_owned(),
                password_hash: hash,
                operator: true,
                must_change: true,
            };
            let user = tx.create_user(&new).await?;
            tx.set_role(&org.id, &user.id, Role::Owner).await?;
            true
        }
        Ok(user) if reset => {
            tx.set_password(&user.id, &hash, true).await?;
            true
        }
        other => {
            other?;
            false
        }
    };
    tx.commit().await?;
    Ok(made.then_some(password))
}
