//! The database schema, and the only crate that speaks SQL.
