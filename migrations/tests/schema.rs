//! Migrations prove themselves: twice is once, and together they make the recorded schema.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use marina_db::Db;
use sqlx::{Connection, SqliteConnection};

async fn schema_of(path: &Path) -> Vec<String> {
    let mut conn =
        SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '_sqlx%' \
               ORDER BY type, name";
    let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut conn).await.unwrap();
    rows.iter().map(|sql| sql.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marina.db");
    Db::open(&path).await.unwrap().close().await;
    let first = schema_of(&path).await;
    Db::open(&path).await.unwrap().close().await;
    assert_eq!(first, schema_of(&path).await);
}

#[tokio::test]
async fn many_may_open_a_new_database_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marina.db");
    let opened: Vec<_> = (0..6)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Db::open(&path).await.map(|_| ()) })
        })
        .collect();
    for open in opened {
        open.await.unwrap().unwrap();
    }
}

/// The schema that all migrations together must make. When you add a migration, run this test
/// with `UPDATE_SCHEMA=1` and read the difference.
#[tokio::test]
async fn the_migrations_together_make_the_recorded_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marina.db");
    Db::open(&path).await.unwrap().close().await;
    let now = schema_of(&path).await.join(";\n") + ";\n";
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema.sql");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&recorded, &now).unwrap();
    }
    assert_eq!(now, std::fs::read_to_string(&recorded).unwrap_or_default());
}

#[test]
fn the_schema_uses_only_what_postgresql_has_too() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    for entry in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap().to_uppercase();
        for word in ["AUTOINCREMENT", "ROWID", " BLOB", "INTEGER", "STRICT", "DATETIME", "PRAGMA"] {
            assert!(!text.contains(word), "{word} is not for both databases");
        }
    }
}
