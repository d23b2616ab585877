//! How pools are opened: what every session is told, on either database.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use bigdecimal::BigDecimal;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::fault::is_locked;
use super::{Fault, PoolOptions};

/// The collation that compares SQLite's numerics, which are text, by value.
pub(super) const NUMERIC_COLLATION: &str = "cutover_numeric";

/// A session that rests in a transaction for longer is ended by PostgreSQL: it belongs to a process that is
/// frozen or cut off, and may hold the gate.
pub const IDLE_IN_TRANSACTION_MAX: Duration = Duration::from_secs(2);

/// Settings that a value's text follows, and what every session of ours has: one spelling of each value.
pub const SPELLING: [(&str, &str); 5] = [
    ("timezone", "UTC"),
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

/// How soon the write-ahead journal is asked for again.
const WRITE_AHEAD_RETRY: Duration = Duration::from_millis(5);

/// A pool of PostgreSQL's.
pub(super) fn open_postgres(url: &str, options: &PoolOptions) -> Result<PgPool, Fault> {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let connect = url
        .parse::<PgConnectOptions>()
        .map_err(|error| Fault::Unavailable(format!("database URL: {error}")))?
        .application_name(&options.application_name)
        .statement_cache_capacity(512)
        .options([
            ("statement_timeout", ms(options.statement_timeout).as_str()),
            ("lock_timeout", ms(options.lock_timeout).as_str()),
            (
                "idle_in_transaction_session_timeout",
                ms(IDLE_IN_TRANSACTION_MAX).as_str(),
            ),
            ("default_transaction_isolation", "read committed"),
        ])
        .options(SPELLING)
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .connect_lazy_with(connect))
}

/// A pool of SQLite's.
pub(super) fn open_sqlite(url: &str, options: &PoolOptions) -> Result<SqlitePool, Fault> {
    let connect = url
        .parse::<SqliteConnectOptions>()
        .map_err(|error| Fault::Unavailable(format!("database URL: {error}")))?
        .create_if_missing(true)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("case_sensitive_like", "ON")
        .collation(NUMERIC_COLLATION, compare_numerics)
        .busy_timeout(options.lock_timeout)
        .disable_statement_logging();
    let patience = options.lock_timeout;
    Ok(SqlitePoolOptions::new()
        .after_connect(move |connection, _| Box::pin(write_ahead(connection, patience)))
        .max_connections(options.connections_max)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .connect_lazy_with(connect))
}

/// Sets the write-ahead journal. The first connections of a new file may all want to: whoever comes second is told
/// that the file is locked, and SQLite's own patience (`busy_timeout`) does not count for that.
async fn write_ahead(
    connection: &mut SqliteConnection,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let give_up_at = Instant::now() + patience;
    loop {
        let set = sqlx::query("PRAGMA journal_mode = WAL");
        match set.execute(&mut *connection).await {
            Err(error) if is_locked(&error) && Instant::now() < give_up_at => {
                tokio::time::sleep(WRITE_AHEAD_RETRY).await;
            }
            set => return set.map(drop),
        }
    }
}

/// Numerics are text in SQLite; NaN is the greatest, as in PostgreSQL.
fn compare_numerics(left: &str, right: &str) -> Ordering {
    let place = |text: &str| match text {
        "-Infinity" => (0, BigDecimal::default()),
        "Infinity" => (2, BigDecimal::default()),
        text => match text.parse::<BigDecimal>() {
            Ok(number) => (1, number),
            Err(_) => (3, BigDecimal::default()),
        },
    };
    place(left).cmp(&place(right))
}
