//! A connection pool, a transaction and a row, for either dialect, behind one face.
//!
//! Control statements are few and portable, so one small face serves both databases; it is deliberately
//! poorer than `sqlx`: text, integers, floats, bytes and NULL in, the same out.
//!
//! A transaction must not be dropped half-way by a cancelled future (an open transaction would go back to
//! the pool on PostgreSQL): whoever begins one runs in a task of its own that nobody cancels.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row as _, Sqlite, Transaction};

use super::open::{open_postgres, open_sqlite};
use super::{Arg, Dialect, Fault};

/// A pool of connections to one database.
#[derive(Clone, Debug)]
pub enum Db {
    /// PostgreSQL.
    Postgres(PgPool),
    /// SQLite.
    Sqlite(SqlitePool),
}

/// An open transaction. Dropped without `commit`, it rolls back.
#[derive(Debug)]
pub struct Tx {
    pub(super) inner: TxInner,
    pub(super) failed: bool,
}

#[derive(Debug)]
pub(super) enum TxInner {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

/// A result row.
#[derive(Debug)]
pub enum Record {
    /// From PostgreSQL.
    Postgres(PgRow),
    /// From SQLite.
    Sqlite(SqliteRow),
}

/// How a pool is opened.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// At most this many connections.
    pub connections_max: u32,
    /// How long to wait for one.
    pub acquire_timeout: Duration,
    /// PostgreSQL `statement_timeout`.
    pub statement_timeout: Duration,
    /// PostgreSQL `lock_timeout`.
    pub lock_timeout: Duration,
    /// `application_name`, so that a DBA can tell who is who.
    pub application_name: String,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connections_max: 16,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(4),
            application_name: "cutover".to_owned(),
        }
    }
}

impl Db {
    /// Opens a pool without connecting yet: a database that is down at start is met like one that goes
    /// down later. `postgres://…` or `sqlite://path`.
    ///
    /// # Errors
    /// When the URL is not one of these.
    pub fn open(url: &str, options: &PoolOptions) -> Result<Self, Fault> {
        if url.starts_with("sqlite:") {
            open_sqlite(url, options).map(Self::Sqlite)
        } else {
            open_postgres(url, options).map(Self::Postgres)
        }
    }

    /// Closes every connection, after what they are doing.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }

    /// Which dialect it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Runs one statement in a transaction of its own and returns its rows.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn fetch(&self, sql: &str, args: Vec<Arg>) -> Result<Vec<Record>, Fault> {
        match self {
            Self::Postgres(pool) => {
                // A connection that cannot be had is "not started"; only then is a lost one in doubt.
                let mut connection = pool.acquire().await.map_err(not_started)?;
                fetch_postgres(&mut connection, sql, args).await
            }
            Self::Sqlite(pool) => {
                let mut connection = pool.acquire().await.map_err(not_started)?;
                fetch_sqlite(&mut connection, sql, args).await
            }
        }
    }

    /// Runs one statement that only reads, and once more when the schema changed underneath its plan.
    pub(super) async fn fetch_fresh(
        &self,
        sql: &str,
        args: Vec<Arg>,
    ) -> Result<Vec<Record>, Fault> {
        let Self::Postgres(pool) = self else {
            return self.fetch(sql, args).await;
        };
        let mut connection = pool.acquire().await.map_err(not_started)?;
        match fetch_postgres(&mut connection, sql, args.clone()).await {
            Err(fault) if fault.is_other_schema() => {
                connection.clear_cached_statements().await?;
                fetch_postgres(&mut connection, sql, args).await
            }
            result => result,
        }
    }

    /// Runs one control statement, written in the portable subset.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn control(&self, sql: &str, args: Vec<Arg>) -> Result<Vec<Record>, Fault> {
        self.fetch(&self.dialect().control(sql), args).await
    }

    /// Runs statements that take no parameters (DDL), separated by `;`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn batch(&self, sql: &str) -> Result<(), Fault> {
        let statements = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(pool) => sqlx::raw_sql(statements).execute(pool).await.map(drop)?,
            Self::Sqlite(pool) => sqlx::raw_sql(statements).execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Begins a transaction: READ COMMITTED on PostgreSQL, IMMEDIATE on SQLite.
    ///
    /// # Errors
    /// See [`Fault`]; nothing happened.
    pub async fn begin(&self) -> Result<Tx, Fault> {
        let inner = match self {
            Self::Postgres(pool) => TxInner::Postgres(pool.begin().await.map_err(not_started)?),
            Self::Sqlite(pool) => TxInner::Sqlite(
                pool.begin_with("BEGIN IMMEDIATE")
                    .await
                    .map_err(not_started)?,
            ),
        };
        Ok(Tx {
            inner,
            failed: false,
        })
    }
}

impl Tx {
    /// Which dialect it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.inner {
            TxInner::Postgres(_) => Dialect::Postgres,
            TxInner::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Runs one statement. After an error the transaction can only be dropped; and as it was not
    /// committed, no error here is in doubt.
    ///
    /// # Errors
    /// See [`Fault`]; never `InDoubt`.
    pub async fn fetch(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<Record>, Fault> {
        let result = match &mut self.inner {
            TxInner::Postgres(tx) => fetch_postgres(tx, sql, args).await,
            TxInner::Sqlite(tx) => fetch_sqlite(tx, sql, args).await,
        };
        result.map_err(|fault| {
            self.failed = true;
            match fault {
                Fault::InDoubt(why) => Fault::Unavailable(why),
                other => other,
            }
        })
    }

    /// Runs one control statement, written in the portable subset.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn control(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<Record>, Fault> {
        let sql = self.dialect().control(sql).into_owned();
        self.fetch(&sql, args).await
    }
}

impl Record {
    /// Which dialect it is from.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Column `index` as text.
    ///
    /// # Errors
    /// When the column has another type.
    pub fn text(&self, index: usize) -> Result<Option<String>, Fault> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(index)?,
            Self::Sqlite(row) => row.try_get(index)?,
        })
    }

    /// Column `index` as a 64-bit integer.
    ///
    /// # Errors
    /// When the column has another type.
    pub fn int(&self, index: usize) -> Result<Option<i64>, Fault> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(index)?,
            Self::Sqlite(row) => row.try_get(index)?,
        })
    }

    /// Column `index` as a boolean.
    ///
    /// # Errors
    /// When the column has another type.
    pub fn bool(&self, index: usize) -> Result<Option<bool>, Fault> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(index)?,
            Self::Sqlite(row) => row.try_get(index)?,
        })
    }

    /// Column `index` as text that must be there.
    ///
    /// # Errors
    /// When it is NULL or has another type.
    pub fn some_text(&self, index: usize) -> Result<String, Fault> {
        self.text(index)?.ok_or_else(|| null_at(index))
    }

    /// Column `index` as an integer that must be there.
    ///
    /// # Errors
    /// When it is NULL or has another type.
    pub fn some_int(&self, index: usize) -> Result<i64, Fault> {
        self.int(index)?.ok_or_else(|| null_at(index))
    }

    /// Column `index` as a boolean that must be there.
    ///
    /// # Errors
    /// When it is NULL or has another type.
    pub fn some_bool(&self, index: usize) -> Result<bool, Fault> {
        self.bool(index)?.ok_or_else(|| null_at(index))
    }
}

fn null_at(index: usize) -> Fault {
    Fault::Unexpected(format!("column {index} is NULL"))
}

/// A fault before any statement was sent is never in doubt.
fn not_started(error: sqlx::Error) -> Fault {
    match Fault::from(error) {
        Fault::InDoubt(why) => Fault::Unavailable(why),
        other => other,
    }
}

async fn fetch_postgres(
    connection: &mut sqlx::PgConnection,
    sql: &str,
    args: Vec<Arg>,
) -> Result<Vec<Record>, Fault> {
    let mut query = sqlx::query::<Postgres>(AssertSqlSafe(sql.to_owned()));
    for arg in args {
        query = match arg {
            Arg::Text(value) => query.bind(value),
            Arg::Int(value) => query.bind(value),
            Arg::Float(value) => query.bind(value),
            Arg::Bool(value) => query.bind(value),
            Arg::Bytes(value) => query.bind(value),
        };
    }
    let rows = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(Record::Postgres).collect())
}

async fn fetch_sqlite(
    connection: &mut sqlx::SqliteConnection,
    sql: &str,
    args: Vec<Arg>,
) -> Result<Vec<Record>, Fault> {
    let mut query = sqlx::query::<Sqlite>(AssertSqlSafe(sql.to_owned()));
    for arg in args {
        query = match arg {
            Arg::Text(value) => query.bind(value),
            Arg::Int(value) => query.bind(value),
            Arg::Float(value) => query.bind(value),
            Arg::Bool(value) => query.bind(value),
            Arg::Bytes(value) => query.bind(value),
        };
    }
    let rows = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(Record::Sqlite).collect())
}
