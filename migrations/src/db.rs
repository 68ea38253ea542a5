//! Opening the database; snapshots, write transactions, and the doorbell.

use std::{
    ops::{Deref, DerefMut},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use crate::error::{DbError, Result};

/// The embedded migrations, in order.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./sql");

/// How often the doorbell of other processes is looked at.
const BELL_POLL: Duration = Duration::from_millis(100);

/// Events and audit entries that one write transaction may record (see [`Writer::next_seq`]).
const SEQUENCES_PER_WRITE: i64 = 1024;

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A handle to the database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: SqlitePool,
    /// Rung by writes of this process, so that they need not wait for a poll.
    local: Arc<watch::Sender<i64>>,
}

impl Db {
    /// Opens (creates) the database file and brings its schema up to date. Several processes may
    /// do this at the same time.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(20))
            .foreign_keys(true);
        let _lock = lock_for_migration(path).await?;
        create_private(path)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(30))
            .connect_with(options)
            .await?;
        MIGRATIONS.run(&pool).await.map_err(DbError::Migrate)?;
        Ok(Self { pool, local: Arc::new(watch::Sender::new(0)) })
    }

    /// A consistent snapshot for reading.
    pub async fn read(&self) -> Result<Reader> {
        Ok(Reader { tx: self.pool.begin().await?, now_ms: now_ms() })
    }

    /// The write transaction; others wait until it is committed or dropped.
    pub async fn write(&self) -> Result<Writer> {
        self.write_at(now_ms()).await
    }

    /// As [`Db::write`], with the time that it should record; for tests.
    pub async fn write_at(&self, now_ms: i64) -> Result<Writer> {
        // Taking the write lock at the start is what keeps SQLite from failing half-way with BUSY.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let bell: i64 = sqlx::query_scalar(
            "UPDATE doorbell SET count = count + 1 WHERE name = 'writes' RETURNING count",
        )
        .fetch_one(&mut *tx)
        .await?;
        let local = Arc::clone(&self.local);
        Ok(Writer { reader: Reader { tx, now_ms }, bell, sequences: 0, local })
    }

    /// How many write transactions have been committed, ever.
    pub async fn doorbell(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT count FROM doorbell WHERE name = 'writes'")
            .fetch_one(&self.pool)
            .await?)
    }

    /// Waits until the doorbell is past `seen` or the time is over, and returns what it is then.
    pub async fn wait_for_bell(&self, seen: i64, timeout: Duration) -> Result<i64> {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut local = self.local.subscribe();
        loop {
            let bell = self.doorbell().await?;
            let now = tokio::time::Instant::now();
            if bell > seen || now >= deadline {
                return Ok(bell);
            }
            // Either the next poll or a write of this process; the counter decides.
            let pause = BELL_POLL.min(deadline - now);
            let _ = tokio::time::timeout(pause, local.wait_for(|rung| *rung > seen)).await;
        }
    }

    /// Closes all connections, after which the file may be moved.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Makes the file, if there is none, for its owner alone: password and token hashes are in it.
/// SQLite gives its journal the same permissions.
fn create_private(path: &Path) -> std::io::Result<()> {
    match std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// SQLite's migrations take no lock of their own: two starting processes would both create the
/// first table. The lock file stays, empty, beside the database.
async fn lock_for_migration(path: &Path) -> Result<std::fs::File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".migrate-lock");
    let path = PathBuf::from(name);
    let locked = tokio::task::spawn_blocking(move || {
        let file =
            std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    Ok(locked.await.map_err(std::io::Error::other)??)
}

/// A consistent snapshot. Reads are methods in the file of their noun.
#[derive(Debug)]
pub struct Reader {
    tx: Transaction<'static, Sqlite>,
    now_ms: i64,
}

impl Reader {
    pub(crate) fn conn(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// The time at which this transaction began, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The doorbell as of this snapshot.
    pub async fn bell(&mut self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT count FROM doorbell WHERE name = 'writes'")
            .fetch_one(self.conn())
            .await?)
    }
}

/// The write transaction. Writes are methods in the file of their noun.
#[derive(Debug)]
pub struct Writer {
    reader: Reader,
    bell: i64,
    sequences: i64,
    local: Arc<watch::Sender<i64>>,
}

impl Writer {
    /// Makes everything that was written durable and rings the doorbell.
    pub async fn commit(self) -> Result<()> {
        self.reader.tx.commit().await?;
        self.local.send_replace(self.bell);
        Ok(())
    }

    /// A number that grows over all transactions: the doorbell orders transactions, which are
    /// serialised by its row, and the count orders what one of them records.
    pub(crate) fn next_seq(&mut self) -> i64 {
        let at = self.sequences.min(SEQUENCES_PER_WRITE - 1);
        debug_assert!(self.sequences < SEQUENCES_PER_WRITE, "too many records in one transaction");
        self.sequences += 1;
        self.bell * SEQUENCES_PER_WRITE + at
    }
}

impl Deref for Writer {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut Reader {
        &mut self.reader
    }
}
