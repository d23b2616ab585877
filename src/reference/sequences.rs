//! Keeps the tables' sequences past the ids that writers gave themselves.
//!
//! Whole rows arrive with their ids: from a backfill, a payment, a live write. A sequence that nobody told would
//! give the same ids out again to whoever inserts without one. Sequences stand outside of transactions, so they are
//! moved once for each request, after its commits and before its answer; what a crash left out, and what was
//! loaded past the service, is caught up at the next start.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::contract::Row;
use crate::schema::{Change, Schema, Table, Write};
use crate::sql::render::{advance_sequences, quote};
use crate::sql::{Db, Dialect, Fault};

/// Rows that were written with ids of their writer's, by table: no more than the request holds.
#[derive(Debug, Default)]
pub(super) struct Given(BTreeMap<String, (Arc<Table>, Vec<Row>)>);

impl Given {
    /// Notes the ids of a write that was committed.
    pub(super) fn note(&mut self, write: &Write) {
        for change in write.changes() {
            match change {
                Change::Insert { table, rows, .. } => self.add(table, rows),
                Change::Update { table, set, .. } => self.add(table, std::slice::from_ref(set)),
                Change::Delete { .. } | Change::SoftDelete { .. } => {}
            }
        }
    }

    fn add(&mut self, table: &Arc<Table>, rows: &[Row]) {
        let counted = || table.columns.iter().filter(|one| one.sequence.is_some());
        let ids = |row: &Row| -> Row {
            counted()
                .filter_map(|column| row.get_key_value(&column.name))
                .map(|(name, id)| (name.clone(), id.clone()))
                .collect()
        };
        let ids: Vec<Row> = rows.iter().map(ids).filter(|row| !row.is_empty()).collect();
        if ids.is_empty() {
            return;
        }
        let (_, given) = self
            .0
            .entry(table.name.clone())
            .or_insert_with(|| (Arc::clone(table), Vec::new()));
        given.extend(ids);
    }

    /// Moves the sequences past them. The rows are committed, so what cannot be done is only said: the next write,
    /// or the next start, does it.
    pub(super) async fn pass(self, db: &Db) {
        for (table, rows) in self.0.into_values() {
            if let Err(fault) = advance(db, &table, &rows).await {
                tracing::warn!(%fault, table = table.name, "a sequence stays behind ids that were given");
            }
        }
    }
}

/// Moves every sequence past the greatest id that its table holds.
///
/// # Errors
/// See [`Fault`].
pub(super) async fn catch_up(db: &Db, schema: &Schema) -> Result<(), Fault> {
    // SQLite's rowids follow the greatest key by themselves.
    if db.dialect() == Dialect::Sqlite {
        return Ok(());
    }
    for table in schema.tables.values() {
        for (column, _) in table.counted() {
            let sql = format!(
                "SELECT max({})::int8 FROM {}",
                quote(&column.name),
                table.sql_name
            );
            let records = db.fetch(&sql, Vec::new()).await?;
            let greatest = records.first().map(|record| record.int(0)).transpose()?;
            if let Some(greatest) = greatest.flatten() {
                let row = Row::from_iter([(column.name.clone(), greatest.into())]);
                advance(db, table, &[row]).await?;
            }
        }
    }
    Ok(())
}

async fn advance(db: &Db, table: &Table, rows: &[Row]) -> Result<(), Fault> {
    for statement in advance_sequences(db.dialect(), table, rows) {
        db.fetch(&statement.text, statement.args).await?;
    }
    Ok(())
}
