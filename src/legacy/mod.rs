//! The legacy database: what the application wrote to before, and what a rollback needs.
//!
//! As the authority it is written by plain DML; the capture triggers it carries are gate, journal and
//! witness (`capture`). As the secondary it is written by key, without firing them (`secondary`).

mod authority;
mod capture;
mod hanging;
mod obstacles;
mod relations;
mod rowids;
mod secondary;
mod shape;

use std::sync::Arc;

use crate::contract::Reply;
use crate::schema::{Filter, Read, Table};
use crate::sql::{Db, Dialect, Fault, IntrospectError, TableSpec};

use hanging::Departures;
use rowids::Rowids;
use shape::{Shape, as_known};

pub use authority::{Stamp, WriteError, Written};
pub use capture::{capture_script, uninstall_sql};
pub use obstacles::{AppTrigger, SequenceBehind};
pub use relations::{Fate, Swept, SweptRow};
pub use secondary::{Applied, Finish, Image, Paid, Source};
pub use shape::Hint;

/// The legacy database with the configured tables.
#[derive(Debug)]
pub struct Legacy {
    db: Db,
    shape: Arc<Shape>,
    /// Whether the session may set `session_replication_role`: then no trigger fires on what is applied.
    replica_role: bool,
    rowids: Arc<Rowids>,
    departures: Arc<Departures>,
}

/// Why the legacy database could not be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It refused or could not be reached.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What writes down the changes of a table is missing or outdated, and this role may not put it there.
    #[error(
        "the capture of {table} is to be installed by the owner of the tables: `cutover schema --control` prints it ({fault})"
    )]
    Capture {
        /// The table, or `every table`.
        table: String,
        /// What the database said.
        fault: Fault,
    },
    /// A configured table is not there, or not usable.
    #[error(transparent)]
    Introspect(#[from] IntrospectError),
}

impl Legacy {
    /// Reads the shape of the configured tables and installs journal and capture triggers. The control
    /// tables (`cutover.state` and its kin) must be there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(db: Db, specs: Vec<TableSpec>) -> Result<Self, OpenError> {
        let shape = Shape::read(db.clone(), specs).await?;
        capture::install(&db, &shape.known()).await?;
        let replica_role = may_set_replica_role(&db).await;
        Ok(Self {
            db,
            shape: Arc::new(shape),
            replica_role,
            rowids: Arc::default(),
            departures: Arc::default(),
        })
    }

    /// The same database through other connections.
    ///
    /// What callers wait for and what happens behind their backs must not wait for each other's connections.
    #[must_use]
    pub fn through(&self, db: Db) -> Self {
        Self {
            db,
            shape: Arc::clone(&self.shape),
            replica_role: self.replica_role,
            rowids: Arc::clone(&self.rowids),
            departures: Arc::clone(&self.departures),
        }
    }

    /// Takes the capture off tables again that cannot take part after all.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn release(&self, tables: &[String]) -> Result<(), Fault> {
        let known = self.schema();
        for table in tables.iter().filter_map(|name| known.table(name)) {
            let sql = uninstall_sql(self.db.dialect(), table);
            self.db.batch(&sql).await?;
        }
        Ok(())
    }

    /// Its connections, for journal and control, which live in it.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Whether applying as the secondary keeps the application's own triggers quiet.
    #[must_use]
    pub fn silences_triggers(&self) -> bool {
        self.replica_role
    }

    /// Answers a read.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(&self, read: &Read) -> Result<Reply, Fault> {
        self.db.read(read).await
    }

    /// The whole rows that a filter by key matches, at most `limit`, in key order, with the columns that the
    /// table has now.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read_whole(
        &self,
        table: &Arc<Table>,
        filter: &Filter,
        limit: u64,
    ) -> Result<Reply, Fault> {
        let mut known = self.schema();
        loop {
            let table = as_known(&known, table);
            let read = Read::whole_rows(&table, filter.clone(), Some(limit));
            match self.db.read(&read).await {
                Err(fault) => known = self.newer(&known, fault).await?,
                reply => return reply,
            }
        }
    }

    /// How many rows a table has; an error where counting takes longer than a statement may.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn rows_counted(&self, table: &Table) -> Result<Option<u64>, Fault> {
        let sql = format!("SELECT count(*) FROM {}", table.sql_name);
        let rows = self.db.fetch(&sql, vec![]).await?;
        let count = rows.first().map(|row| row.some_int(0)).transpose()?;
        Ok(count.and_then(|count| u64::try_from(count).ok()))
    }

    /// About how many rows a table has, for showing progress; none when nobody knows.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn rows_estimated(&self, table: &Table) -> Result<Option<u64>, Fault> {
        let name = &table.sql_name;
        let rows = match self.db.dialect() {
            // Counting a large table takes longer than a statement may; the planner's number is near enough.
            Dialect::Postgres => {
                let sql = "SELECT reltuples::bigint FROM pg_class WHERE oid = $1::regclass";
                self.db.fetch(sql, vec![name.as_str().into()]).await?
            }
            Dialect::Sqlite => {
                let sql = format!("SELECT count(*) FROM {name}");
                self.db.fetch(&sql, vec![]).await?
            }
        };
        let count = rows.first().map(|row| row.some_int(0)).transpose()?;
        // -1: the table was never analyzed.
        Ok(count.and_then(|count| u64::try_from(count).ok()))
    }

    /// Whether it answers at all.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn probe(&self) -> Result<(), Fault> {
        self.db.fetch("SELECT 1", vec![]).await.map(drop)
    }
}

/// Whether a table has no row.
///
/// # Errors
/// See [`Fault`].
pub async fn is_empty(db: &Db, table: &Table) -> Result<bool, Fault> {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", table.sql_name);
    let rows = db.fetch(&sql, vec![]).await?;
    Ok(rows.is_empty())
}

/// Tries it, because PostgreSQL 13 and 14 have no privilege to look up.
async fn may_set_replica_role(db: &Db) -> bool {
    if db.dialect() == Dialect::Sqlite {
        return false;
    }
    let Ok(mut tx) = db.begin().await else {
        return false;
    };
    tx.fetch("SET LOCAL session_replication_role = replica", vec![])
        .await
        .is_ok()
}
