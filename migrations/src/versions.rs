//! Which Kubernetes minors are on offer: data, not code.

use sqlx::FromRow;

use crate::{
    db::{Reader, Writer},
    error::Result,
    sql_types::text_enum,
};

text_enum! {
    /// Whether a version may be chosen.
    VersionState("version state") {
        /// For new clusters and upgrades.
        Offered = "offered",
        /// Existing clusters keep it; no new ones.
        Retired = "retired",
    }
}

/// A Kubernetes minor.
#[derive(Clone, Debug, FromRow)]
pub struct Version {
    /// Such as `1.35`.
    pub name: String,
    /// Whether it may be chosen.
    pub state: VersionState,
    /// Chosen when a customer does not choose.
    pub is_default: bool,
    /// End of support (Unix ms).
    pub end_of_support_ms: Option<i64>,
}

impl Reader {
    /// All known versions by name.
    pub async fn versions(&mut self) -> Result<Vec<Version>> {
        Ok(sqlx::query_as("SELECT * FROM versions ORDER BY name").fetch_all(self.conn()).await?)
    }
}

impl Writer {
    /// Adds a version, or changes its state.
    pub async fn set_version(&mut self, name: &str, state: VersionState) -> Result<()> {
        sqlx::query(
            "INSERT INTO versions (name, state, is_default, end_of_support_ms) \
             VALUES ($1, $2, 0, NULL) ON CONFLICT (name) DO UPDATE SET state = excluded.state",
        )
        .bind(name)
        .bind(state.as_str())
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
