//! Changes on SQLite, row by row: it is embedded, so a statement costs no round trip.
//!
//! RETURNING gives rows in no promised order, so the rows of an update or delete are put in key order
//! before they are changed: their keys are read first, in the same transaction, which holds the only
//! write lock.

use std::collections::HashMap;

use super::render::{self, ALIAS, Params, Statement};
use super::run::keyed_rows;
use super::{Applied, Dialect, Fault, Tx};
use crate::contract::{Key, Row};
use crate::schema::{Change, Filter, Generated, Table};

const DIALECT: Dialect = Dialect::Sqlite;

/// Runs a change in an open transaction.
pub(super) async fn apply(tx: &mut Tx, change: &Change) -> Result<Vec<Applied>, Fault> {
    match change {
        Change::Insert {
            table,
            rows,
            upsert,
            ..
        } => {
            let mut applied = Vec::with_capacity(rows.len());
            for row in rows {
                applied.extend(insert(tx, table, row, *upsert).await?);
            }
            Ok(applied)
        }
        Change::Update {
            table, filter, set, ..
        } => {
            let prefix = |params: &mut Params| {
                let set = render::assignments(params, table, set);
                format!("UPDATE {} AS {ALIAS} SET {set}", table.sql_name)
            };
            each(tx, table, filter, &prefix).await
        }
        Change::SoftDelete { table, filter, .. } => {
            let prefix = |_: &mut Params| {
                let set = render::soft_delete(DIALECT, table);
                format!("UPDATE {} AS {ALIAS} SET {set}", table.sql_name)
            };
            each(tx, table, filter, &prefix).await
        }
        Change::Delete { table, filter, .. } => {
            let keys = tx.keys_matching(table, filter, u64::MAX).await?;
            // As they are before one of them takes another along.
            let rows = tx.rows_by_keys(table, &keys).await?.into_iter();
            let mut rows: HashMap<Key, Applied> = rows.map(|row| (row.key.clone(), row)).collect();
            tx.remove_keys(table, &keys).await?;
            Ok(keys.iter().filter_map(|key| rows.remove(key)).collect())
        }
    }
}

/// Runs a statement for each row that matches, in key order.
async fn each(
    tx: &mut Tx,
    table: &Table,
    filter: &Filter,
    prefix: &(impl Fn(&mut Params) -> String + Sync),
) -> Result<Vec<Applied>, Fault> {
    let mut applied = Vec::new();
    for key in tx.keys_matching(table, filter, u64::MAX).await? {
        let values = serde_json::from_str(&key.0)
            .map_err(|_| Fault::Unexpected(format!("a key of {} is not JSON", table.name)))?;
        let this_row = Filter::Keys(vec![values]);
        let mut params = Params::new(DIALECT);
        let head = prefix(&mut params);
        let condition = render::where_clause(&mut params, table, &this_row);
        let text = format!("{head} {condition} RETURNING {}", stored(table));
        applied.extend(returned(tx, table, params.statement(text)).await?);
    }
    Ok(applied)
}

async fn insert(
    tx: &mut Tx,
    table: &Table,
    row: &Row,
    upsert: bool,
) -> Result<Vec<Applied>, Fault> {
    let columns: Vec<_> = row
        .keys()
        .filter_map(|name| table.column(name))
        .filter(|&index| table.columns[index].generated != Generated::Expression)
        .collect();
    if upsert && render::must_update_first(table, &columns) {
        let updated = returned(tx, table, update_given(table, row)).await?;
        if !updated.is_empty() {
            return Ok(updated);
        }
    }
    let mut params = Params::new(DIALECT);
    let source = render::record_source(&mut params, table, &columns, [row]);
    let conflict = match upsert && render::has_whole_key(table, &columns) {
        true => render::on_conflict(table, &columns),
        false => String::new(),
    };
    let text = format!(
        "INSERT INTO {} AS {ALIAS} {} {source} {conflict} RETURNING {}",
        table.sql_name,
        render::target(DIALECT, table, &columns),
        stored(table),
    );
    returned(tx, table, params.statement(text)).await
}

/// Sets the given columns of the row with the given key.
fn update_given(table: &Table, row: &Row) -> Statement {
    let key_names: Vec<_> = table.key_columns().map(|column| &column.name).collect();
    let key = key_names.iter().map(|&name| row[name].clone()).collect();
    let set: Row = row
        .iter()
        .filter(|(name, _)| !key_names.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut params = Params::new(DIALECT);
    let set = render::assignments(&mut params, table, &set);
    let condition = render::where_clause(&mut params, table, &Filter::Keys(vec![key]));
    let text = format!(
        "UPDATE {} AS {ALIAS} SET {set} {condition} RETURNING {}",
        table.sql_name,
        stored(table)
    );
    params.statement(text)
}

async fn returned(tx: &mut Tx, table: &Table, statement: Statement) -> Result<Vec<Applied>, Fault> {
    let records = tx.run(statement).await?;
    keyed_rows(DIALECT, table, &records)
}

fn stored(table: &Table) -> String {
    format!(
        "{}, {}",
        render::key_expr(DIALECT, table, ""),
        render::row_expr(DIALECT, table, &table.every_column(), "")
    )
}
