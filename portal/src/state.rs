//! What every request handler shares.

use std::sync::Arc;

use marina_db::Db;
use marina_db::seal::Sealer;

use crate::live::Bell;
use crate::password::LoginLimiter;

/// Shared by all handlers; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// The database.
    pub db: Db,
    /// Opens sealed secrets.
    pub sealer: Arc<Sealer>,
    /// Rings when the database changed.
    pub bell: Bell,
    /// Slows down guessing of passwords.
    pub logins: Arc<LoginLimiter>,
    /// Cookies are for HTTPS only.
    pub secure_cookies: bool,
}
