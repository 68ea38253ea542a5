//! What can go wrong, in the words of the noun that it happened to.

/// Result of every call of this crate.
pub type Result<T> = std::result::Result<T, DbError>;

/// An error of the database layer.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The object does not exist.
    #[error("{noun} {name:?} not found")]
    NotFound {
        /// What was looked for, such as `cluster`.
        noun: &'static str,
        /// Its id or name.
        name: String,
    },
    /// An object with that unique name, or with references to it, exists.
    #[error("{noun} {name:?}: {reason}")]
    Conflict {
        /// What was to be written.
        noun: &'static str,
        /// Its id or name.
        name: String,
        /// Why not, in words.
        reason: String,
    },
    /// A secret could not be opened: wrong key file, or altered data.
    #[error("secret {owner}/{name} cannot be opened with this key file")]
    Sealed {
        /// The secret's owner.
        owner: String,
        /// The secret's name.
        name: String,
    },
    /// The key file is missing, readable by others, or not a key.
    #[error("secret key file {path}: {reason}")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A migration failed, or the database is of a newer release.
    #[error("database migration failed")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database itself failed.
    #[error("database failed")]
    Database(#[from] sqlx::Error),
    /// A file beside the database could not be used.
    #[error("file beside the database failed")]
    Io(#[from] std::io::Error),
}

impl DbError {
    /// True when the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True when a unique name is taken.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// Names the object in a not-found error.
pub(crate) fn found<T>(row: Option<T>, noun: &'static str, name: &str) -> Result<T> {
    row.ok_or_else(|| DbError::NotFound { noun, name: name.to_owned() })
}

/// Turns a violated constraint into a conflict of the named object.
pub(crate) fn conflict(
    error: sqlx::Error,
    noun: &'static str,
    name: &str,
    taken: &str,
    reference: &str,
) -> DbError {
    let reason = match error.as_database_error() {
        Some(db) if db.is_unique_violation() => taken.to_owned(),
        Some(db) if db.is_foreign_key_violation() => reference.to_owned(),
        _ => return DbError::Database(error),
    };
    DbError::Conflict { noun, name: name.to_owned(), reason }
}
