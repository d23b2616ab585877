//! Bound requests run: reads, changes, and rows by key, on a pool or in an open transaction.
//!
//! Rows leave here as finished JSON text. A read outside a transaction is tried twice when the schema
//! changed under its prepared statement: reading again is harmless, and the second plan is fresh.

use serde_json::Value;

use super::render::{self, Statement};
use super::{Db, Dialect, Fault, Record, Tx, sqlite_change};
use crate::contract::{Key, Reply, Row};
use crate::schema::{Change, Filter, Read, ReadKind, Table};

/// A row that a change touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its key after the change (before it, for a removed row).
    pub key: Key,
    /// The row after the change (before it, for a removed row), as JSON text.
    pub row: String,
}

/// A row that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its key.
    pub key: Key,
    /// The row, as JSON text.
    pub row: String,
    /// Names of the columns whose values are not in that text as they are in the database, separated by
    /// commas; nearly always empty.
    pub unfaithful: String,
}

/// The reply of a change: a row or `null` where the request asks for one, else an array.
#[must_use]
pub fn reply_of(change: &Change, applied: Vec<Applied>) -> Reply {
    let mut rows = applied.into_iter().map(|applied| applied.row);
    Reply::from_json(if change.is_single() {
        rows.next().unwrap_or_else(|| "null".to_owned())
    } else {
        array(rows)
    })
}

impl Db {
    /// Runs a read.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn read(&self, read: &Read) -> Result<Reply, Fault> {
        let statement = render::read(self.dialect(), read);
        let records = self.fetch_fresh(&statement.text, statement.args).await?;
        read_reply(read, &records)
    }

    /// The rows that exist of these keys, with their keys, in no order.
    ///
    /// # Errors
    /// See [`Fault`]; `OtherSchema` when the table has other columns than are known, even if only more.
    pub async fn rows_by_keys(&self, table: &Table, keys: &[Key]) -> Result<Vec<Held>, Fault> {
        let statement = render::rows_by_keys(self.dialect(), table, keys);
        let records = self.fetch_fresh(&statement.text, statement.args).await?;
        let held = |record: &Record| {
            has_columns_of(table, record.some_int(3)?)?;
            Ok(Held {
                key: Key(record.some_text(0)?),
                row: finished(self.dialect(), table, record.some_text(1)?)?,
                unfaithful: record.some_text(2)?,
            })
        };
        records.iter().map(held).collect()
    }

    /// The keys of at most `limit` rows that match, in key order.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn keys_matching(
        &self,
        table: &Table,
        filter: &Filter,
        limit: u64,
    ) -> Result<Vec<Key>, Fault> {
        let statement = render::keys_matching(self.dialect(), table, filter, limit);
        keys(&self.fetch_fresh(&statement.text, statement.args).await?)
    }

    /// The canonical keys of key values, in the order given.
    ///
    /// # Errors
    /// See [`Fault`]; `Refused` when a value does not fit its column.
    pub async fn canonical_keys(
        &self,
        table: &Table,
        values: &[Vec<Value>],
    ) -> Result<Vec<Key>, Fault> {
        let statement = render::canonical_keys(self.dialect(), table, values);
        keys(&self.fetch_fresh(&statement.text, statement.args).await?)
    }
}

impl Tx {
    /// Runs a read in the transaction.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn read(&mut self, read: &Read) -> Result<Reply, Fault> {
        let records = self.run(render::read(self.dialect(), read)).await?;
        read_reply(read, &records)
    }

    /// Runs a change in the transaction and returns the rows it touched: inserted ones in the order
    /// given, others in key order.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn apply(&mut self, change: &Change) -> Result<Vec<Applied>, Fault> {
        match self.dialect() {
            Dialect::Postgres => {
                let dml = render::dml(change);
                let text = format!("WITH {} SELECT key, row FROM w ORDER BY n", dml.ctes);
                let records = self.fetch(&text, dml.args).await?;
                keyed_rows(Dialect::Postgres, change.table(), &records)
            }
            Dialect::Sqlite => sqlite_change::apply(self, change).await,
        }
    }

    /// The rows that exist of these keys, with their keys, in no order.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn rows_by_keys(
        &mut self,
        table: &Table,
        keys: &[Key],
    ) -> Result<Vec<Applied>, Fault> {
        let statement = render::rows_by_keys(self.dialect(), table, keys);
        let records = self.run(statement).await?;
        keyed_rows(self.dialect(), table, &records)
    }

    /// The keys of at most `limit` rows that match, in key order.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn keys_matching(
        &mut self,
        table: &Table,
        filter: &Filter,
        limit: u64,
    ) -> Result<Vec<Key>, Fault> {
        let statement = render::keys_matching(self.dialect(), table, filter, limit);
        keys(&self.run(statement).await?)
    }

    /// Puts whole rows by primary key, as copies of the authority's; returns them as stored, in the order
    /// given. Rows may differ in their columns.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn put_rows(&mut self, table: &Table, rows: &[Row]) -> Result<Vec<String>, Fault> {
        let mut stored = vec![String::new(); rows.len()];
        for group in render::groups(table, rows) {
            let same: Vec<Row> = group.rows.iter().map(|&row| row.clone()).collect();
            let statement = render::put_rows(self.dialect(), table, &same);
            let records = self.run(statement).await?;
            for (record, position) in records.iter().zip(group.positions) {
                has_columns_of(table, record.some_int(1)?)?;
                stored[position] = finished(self.dialect(), table, record.some_text(0)?)?;
            }
        }
        Ok(stored)
    }

    /// Removes the rows of these keys and returns the keys of those that existed.
    ///
    /// # Errors
    /// As `fetch`.
    pub async fn remove_keys(&mut self, table: &Table, gone: &[Key]) -> Result<Vec<Key>, Fault> {
        let statement = render::remove_keys(self.dialect(), table, gone);
        keys(&self.run(statement).await?)
    }

    pub(super) async fn run(&mut self, statement: Statement) -> Result<Vec<Record>, Fault> {
        self.fetch(&statement.text, statement.args).await
    }
}

/// Records of (key text, row JSON text).
pub(super) fn keyed_rows(
    dialect: Dialect,
    table: &Table,
    records: &[Record],
) -> Result<Vec<Applied>, Fault> {
    let applied = |record: &Record| {
        Ok(Applied {
            key: Key(record.some_text(0)?),
            row: finished(dialect, table, record.some_text(1)?)?,
        })
    };
    records.iter().map(applied).collect()
}

/// Refuses to copy rows of a table that has other columns than are known.
fn has_columns_of(table: &Table, count: i64) -> Result<(), Fault> {
    if i64::try_from(table.columns.len()) == Ok(count) {
        return Ok(());
    }
    let why = format!("{} has {count} columns", table.name);
    Err(Fault::OtherSchema(why))
}

fn keys(records: &[Record]) -> Result<Vec<Key>, Fault> {
    records
        .iter()
        .map(|record| record.some_text(0).map(Key))
        .collect()
}

fn read_reply(read: &Read, records: &[Record]) -> Result<Reply, Fault> {
    let json = match &read.kind {
        ReadKind::Count => {
            let count = records
                .first()
                .ok_or_else(|| Fault::Unexpected("a count without a row".to_owned()))?
                .some_int(0)?;
            format!("{{\"count\":{count}}}")
        }
        ReadKind::Rows { .. } => {
            let rows: Result<Vec<_>, _> = records
                .iter()
                .map(|record| finished(record.dialect(), &read.table, record.some_text(0)?))
                .collect();
            array(rows?.into_iter())
        }
    };
    Ok(Reply::from_json(json))
}

fn finished(dialect: Dialect, table: &Table, row: String) -> Result<String, Fault> {
    match dialect {
        Dialect::Postgres => Ok(row),
        Dialect::Sqlite => render::finish_row(table, row),
    }
}

fn array(rows: impl Iterator<Item = String>) -> String {
    let rows: Vec<_> = rows.collect();
    format!("[{}]", rows.join(","))
}
