//! Proving who one is, with a login and a password.

use marina_db::audit::NewAuditEntry;
use marina_db::users::User;
use marina_db::{DbError, now_ms};

use crate::password;
use crate::problem::{FieldError, Problem};
use crate::state::AppState;

/// Failed attempts in a row after which an account is locked.
const FAILURES: i64 = 10;
/// For how long, in milliseconds.
const LOCK_MS: i64 = 5 * 60 * 1000;

/// The user, if the password is right.
///
/// # Errors
/// 401 (the same for an unknown login and a wrong password), 429.
pub async fn check(
    state: &AppState,
    login: &str,
    password: String,
    remote: &str,
) -> Result<User, Problem> {
    state.logins.attempt(&format!("login {login}"))?;
    state.logins.attempt(&format!("remote {remote}"))?;
    let user = match state.db.read().await?.user_by_login(login).await {
        Ok(user) => Some(user),
        Err(DbError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let right = password::verify(password, hash).await?;
    let refused = || Problem::unauthorized("The login or the password is wrong.");
    let Some(user) = user else { return Err(refused()) };
    if user.disabled {
        return Err(refused());
    }
    if user.locked_until_ms > now_ms() {
        return Err(Problem::too_many_requests(
            "This account is locked after too many failed sign-ins. Try again in five minutes.",
        ));
    }
    let mut tx = state.db.write().await?;
    let failures = if right { 0 } else { user.failed_logins + 1 };
    let locked = if failures >= FAILURES { tx.now_ms() + LOCK_MS } else { 0 };
    if failures != user.failed_logins || locked != user.locked_until_ms {
        tx.record_login(&user.id, if locked > 0 { 0 } else { failures }, locked).await?;
    }
    tx.record_audit(&NewAuditEntry {
        actor: user.login.clone(),
        remote: remote.to_owned(),
        action: "sign-in".to_owned(),
        target: format!("user/{}", user.id),
        outcome: if right { "ok" } else { "wrong password" }.to_owned(),
        ..NewAuditEntry::default()
    })
    .await?;
    tx.commit().await?;
    if !right {
        return Err(refused());
    }
    state.logins.forget(&format!("login {login}"));
    state.logins.forget(&format!("remote {remote}"));
    Ok(user)
}

/// Replaces a password; the old one has been checked. Ends all sessions of the user.
///
/// # Errors
/// 422 when the new one is too weak or the same.
pub async fn change_password(
    state: &AppState,
    user: &User,
    old: &str,
    new: String,
) -> Result<(), Problem> {
    password::check_strength("new_password", &new)?;
    if new == old {
        let message = "must differ from the one that you have now.";
        return Err(Problem::invalid(vec![FieldError::new("new_password", message)]));
    }
    let hash = password::hash(new).await?;
    let mut tx = state.db.write().await?;
    tx.set_password(&user.id, &hash, false).await?;
    tx.record_audit(&NewAuditEntry {
        actor: user.login.clone(),
        action: "password.change".to_owned(),
        target: format!("user/{}", user.id),
        outcome: "ok".to_owned(),
        ..NewAuditEntry::default()
    })
    .await?;
    tx.commit().await?;
    Ok(())
}
