//! Two processes write at once: nobody fails, nothing is lost, every write rings the doorbell.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use marina_db::Db;

const WRITES: usize = 60;

/// Not a test of its own: the body of the child process of the test below.
#[tokio::test]
async fn child_writer() {
    let Some(path) = std::env::var_os("MARINA_DB_CHILD") else { return };
    let db = Db::open(path.as_ref()).await.unwrap();
    write_organizations(&db, "child").await;
}

async fn write_organizations(db: &Db, who: &str) {
    for i in 0..WRITES {
        let mut tx = db.write().await.unwrap();
        tx.create_organization(&format!("{who}-{i}")).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marina.db");
    let db = Db::open(&path).await.unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writer"])
        .env("MARINA_DB_CHILD", &path)
        .spawn()
        .unwrap();
    write_organizations(&db, "parent").await;
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert!(status.success());
    let mut tx = db.read().await.unwrap();
    assert_eq!(tx.organizations().await.unwrap().len(), 2 * WRITES);
    assert_eq!(tx.bell().await.unwrap(), 2 * WRITES as i64);
}

#[tokio::test]
async fn a_dropped_write_changes_nothing_and_does_not_ring() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("marina.db")).await.unwrap();
    let mut tx = db.write().await.unwrap();
    tx.create_organization("gone").await.unwrap();
    drop(tx);
    assert!(db.read().await.unwrap().organizations().await.unwrap().is_empty());
    assert_eq!(db.doorbell().await.unwrap(), 0);
}

#[tokio::test]
async fn only_its_owner_reads_the_database() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("marina.db")).await.unwrap();
    let mut tx = db.write().await.unwrap();
    tx.create_organization("o").await.unwrap();
    tx.commit().await.unwrap();
    for file in ["marina.db", "marina.db-wal", "marina.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
