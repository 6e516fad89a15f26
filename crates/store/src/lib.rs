//! Drover's state in PostgreSQL, and all SQL there is.
//!
//! Each module is one table (or two that belong together) and holds verbs, not rows: functions over a connection, so that the
//! caller decides what one transaction is. A change is one compare-and-swap whose `WHERE` spells out what must hold; `None` or
//! `false` says that it did not, and nothing was changed.
//!
//! *Adding a query:* a function with a `query!` in the module of its table; then `make sqlx-prepare`, which keeps `.sqlx` (what
//! the checked queries look like to the compiler, so that a build needs no database) current.
//!
//! *Adding a change of the schema:* a new file in `migrations/`; one that was applied somewhere is never edited.

pub mod actions;
pub mod aggregates;
pub mod audit;
pub mod bandwidth;
pub mod claims;
pub mod debts;
pub mod error;
pub mod findings;
pub mod fleet;
pub mod hosts;
pub mod key_pairs;
pub mod line;
pub mod migrations;
pub mod outbox;
pub mod pause;
pub mod power;
pub mod server_groups;
pub mod servers;
pub mod services;

use std::time::Duration;

use drover_common::config::DatabaseSection;
pub use sqlx::PgConnection;
use sqlx::migrate::{AppliedMigration, Migrate, MigrateError};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

pub use error::StoreError;

/// The schema, step by step.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");

/// A connection that goes back to where it came from.
pub type PoolConnection = sqlx::pool::PoolConnection<sqlx::Postgres>;

/// A transaction; rolled back unless committed.
pub type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// How long a statement waits for a free connection, and for the server to be there at all.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that stay open when nothing happens: after a quiet hour the next request does not wait for new ones.
const CONNECTIONS_MIN: u32 = 2;

/// Connections for what need not be on the disk: single statements, each over in less than a millisecond.
const UNSYNCED_MAX: u32 = 4;

/// A connection that was used so lately is taken to be there still: a question for each statement would double the way to the
/// database. Should it be wrong, the statement fails, as one does that is under way when the database goes.
const IS_FRESH: Duration = Duration::from_secs(1);

/// Every statement of ours takes milliseconds: one that takes this long is stuck, and must not keep others waiting. Steps of the
/// schema may take as long as they need.
const TIMEOUTS: [(&str, &str); 3] =
    [("statement_timeout", "30s"), ("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")];

/// Whether a pooled connection may be used.
async fn is_usable(conn: &mut PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for > IS_FRESH {
        conn.ping().await?; // A connection that fails it is replaced.
    }
    Ok(true)
}

/// The way to the database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    /// Whose commits return before the disk has them.
    unsynced: PgPool,
}

impl Store {
    /// Opens it. The database need not be there yet: statements fail until it is.
    pub fn open(config: &DatabaseSection) -> Result<Self, StoreError> {
        Self::connect(config, &[])
    }

    /// The same for a process that builds no statements while it runs: PostgreSQL plans each once a connection. Left alone it plans each
    /// anew the first five times on every connection, to see whether a plan for the values at hand is better; that takes longer
    /// than the statements do.
    pub fn open_with_fixed_plans(config: &DatabaseSection) -> Result<Self, StoreError> {
        Self::connect(config, &[("plan_cache_mode", "force_generic_plan")])
    }

    fn connect(config: &DatabaseSection, settings: &[(&str, &str)]) -> Result<Self, StoreError> {
        let options: PgConnectOptions = config.connection.expose().parse().map_err(StoreError::query("open"))?;
        // sqlx asks whether a statement is to be logged; with the answer no, tracing's filters per layer swallow the next line of anybody.
        let options = options.application_name("drover").disable_statement_logging();
        let options = options.options(TIMEOUTS).options(settings.iter().copied());
        let pool = |most: u32, options| {
            PgPoolOptions::new()
                .max_connections(most)
                .min_connections(CONNECTIONS_MIN.min(most))
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .test_before_acquire(false)
                .before_acquire(|conn, meta| Box::pin(is_usable(conn, meta.idle_for)))
                .connect_lazy_with(options)
        };
        let unsynced = options.clone().options([("synchronous_commit", "off")]);
        Ok(Self { pool: pool(config.max_pool_size, options), unsynced: pool(UNSYNCED_MAX, unsynced) })
    }

    /// Around a pool that is there already.
    pub fn from_pool(pool: PgPool) -> Self {
        Self { unsynced: pool.clone(), pool }
    }

    /// Brings the schema up to date (`drover db migrate`) and returns the names of the steps that were taken. Whoever comes second
    /// waits for the first and then finds nothing to do.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let mut conn = self.connection().await?;
        conn.lock().await.map_err(StoreError::Migrate)?;
        let taken = take_steps(&mut conn).await;
        // Were this to fail, the lock would end with the connection.
        conn.unlock().await.map_err(StoreError::Migrate)?;
        taken.map_err(StoreError::Migrate)
    }

    /// Steps of the schema that were not taken yet.
    pub async fn steps_missing(&self) -> Result<Vec<String>, StoreError> {
        let mut conn = self.connection().await?;
        let taken = conn.list_applied_migrations(&MIGRATOR.table_name).await.map_err(StoreError::Migrate)?;
        Ok(steps_but(&taken))
    }

    /// A connection on which a statement returns before the disk has what it did: for what is worth nothing after a crash of the
    /// database, such as a lease, or is found out again.
    pub async fn unsynced(&self) -> Result<PoolConnection, StoreError> {
        self.unsynced.acquire().await.map_err(StoreError::query("unsynced"))
    }

    /// The same for several statements in one transaction.
    pub async fn begin_unsynced(&self) -> Result<Transaction, StoreError> {
        self.unsynced.begin().await.map_err(StoreError::query("begin_unsynced"))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one").fetch_one(&self.pool).await.map_err(StoreError::query("ping"))?;
        Ok(())
    }

    /// Connections that are open: (idle, in use).
    pub fn connections(&self) -> (usize, usize) {
        let pools = [&self.pool, &self.unsynced];
        let (idle, open) = pools.iter().fold((0, 0), |(idle, open), pool| (idle + pool.num_idle(), open + pool.size()));
        (idle, usize::try_from(open).unwrap_or(0).saturating_sub(idle))
    }

    /// A connection for statements that each stand alone.
    pub async fn connection(&self) -> Result<PoolConnection, StoreError> {
        self.pool.acquire().await.map_err(StoreError::query("connection"))
    }

    /// A transaction.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        self.pool.begin().await.map_err(StoreError::query("begin"))
    }
}

async fn take_steps(conn: &mut PgConnection) -> Result<Vec<String>, MigrateError> {
    conn.ensure_migrations_table(&MIGRATOR.table_name).await?;
    let before = conn.list_applied_migrations(&MIGRATOR.table_name).await?;
    sqlx::query!("SELECT set_config('statement_timeout', '0', false) AS a, set_config('lock_timeout', '0', false) AS b")
        .fetch_one(&mut *conn)
        .await?;
    MIGRATOR.run(&mut *conn).await?;
    Ok(steps_but(&before))
}

/// The schema's steps without these.
fn steps_but(taken: &[AppliedMigration]) -> Vec<String> {
    let others = MIGRATOR.iter().filter(|step| taken.iter().all(|applied| applied.version != step.version));
    others.map(|step| format!("{} {}", step.version, step.description)).collect()
}

/// Commits.
pub async fn commit(transaction: Transaction) -> Result<(), StoreError> {
    transaction.commit().await.map_err(StoreError::query("commit"))
}

/// The time: this database's, the only one that is compared.
pub async fn now(conn: &mut PgConnection) -> Result<chrono::DateTime<chrono::Utc>, StoreError> {
    sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(conn).await.map_err(StoreError::query("now"))
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
