//! Binds a query to tables: names become columns, values are checked and spelled canonically, defaults of
//! the contract become explicit. What is wrong in a request is found here, before a backend is touched.
//!
//! Messages name tables, columns and kinds, never values.

mod bounded;
mod condition;
mod keyed;
mod rows;
mod transaction;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Change, Filter, Read, ReadKind, Schema, Sort, Step, Table, Test, Write};
use crate::contract::{
    Code, Delete, Error, Insert, Operator, Order, Query, Select, Update, Where, shown,
};

pub use keyed::{bind_keys, bind_range};

/// How large a request may be. Beyond any of these it is `too_large`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BindLimits {
    /// Rows of one insert or upsert.
    pub rows_max: usize,
    /// A select's `limit`.
    pub select_limit_max: u64,
    /// Elements of one `in`.
    pub in_max: usize,
    /// Tests and combiners of one `where`.
    pub where_parts_max: usize,
    /// Combiners inside each other in one `where`.
    pub where_depth_max: usize,
    /// Members of one transaction.
    pub transaction_max: usize,
}

/// A bound query.
#[derive(Clone, Debug)]
pub enum Bound {
    /// It only reads.
    Read(Read),
    /// It writes, or is a transaction.
    Write(Write),
}

impl Default for BindLimits {
    fn default() -> Self {
        Self {
            rows_max: 1_000,
            select_limit_max: 10_000,
            in_max: 10_000,
            where_parts_max: 256,
            where_depth_max: 16,
            transaction_max: 100,
        }
    }
}

/// Binds a query of the contract.
///
/// A `select` without `limit` stays without: whoever runs it limits the result's size.
///
/// # Errors
/// `unknown_table`, `unknown_column`, `type_mismatch`, `unbounded_write`, `key_required`, `constraint` (NULL
/// where none may be), `too_large`, `invalid_request`; `unsupported` for what only the storage service
/// understands (range, batch, resolve) and for transactions that read what they wrote.
pub fn bind(query: &Query, schema: &Schema, limits: &BindLimits) -> Result<Bound, Error> {
    match query {
        Query::Transaction(queries) => transaction::bind(queries, schema, limits).map(Bound::Write),
        member => Ok(match bind_step(member, schema, limits)? {
            Step::Read(read) => Bound::Read(read),
            change @ Step::Change(_) => Bound::Write(Write {
                steps: vec![change],
                transaction: false,
            }),
        }),
    }
}

/// Binds a query that may be a member of a transaction.
fn bind_step(query: &Query, schema: &Schema, limits: &BindLimits) -> Result<Step, Error> {
    match query {
        Query::Select(select) => bind_select(select, schema, limits).map(Step::Read),
        Query::Count(count) => {
            let table = find_table(&count.table, schema)?;
            let filter = condition::bind(count.filter.as_ref(), table, limits)?;
            Ok(Step::Read(Read {
                filter: without_deleted(filter, table, count.include_deleted),
                kind: ReadKind::Count,
                table: Arc::clone(table),
            }))
        }
        Query::Insert(insert) => bind_insert(insert, false, schema, limits).map(Step::Change),
        Query::Upsert(insert) => bind_insert(insert, true, schema, limits).map(Step::Change),
        Query::Update(update) => bind_update(update, schema, limits).map(Step::Change),
        Query::Delete(delete) => bind_delete(delete, schema, limits).map(Step::Change),
        Query::Transaction(_)
        | Query::Range(_)
        | Query::Batch(_)
        | Query::Resolve(_)
        | Query::Describe(_) => {
            let message = format!("{} is not possible here", query.op());
            Err(Error::new(Code::Unsupported, message))
        }
    }
}

fn bind_select(select: &Select, schema: &Schema, limits: &BindLimits) -> Result<Read, Error> {
    let table = find_table(&select.table, schema)?;
    let filter = condition::bind(select.filter.as_ref(), table, limits)?;
    if select.limit > Some(limits.select_limit_max) {
        let message = format!("limit is at most {}", limits.select_limit_max);
        return Err(Error::new(Code::TooLarge, message));
    }
    // It must fit the 64-bit signed integer that SQL has for it.
    if select.offset > Some(i64::MAX as u64) {
        return Err(Error::new(Code::TooLarge, "offset is too large"));
    }
    Ok(Read {
        kind: ReadKind::Rows {
            columns: bind_columns(select.columns.as_deref(), table)?,
            order: bind_order(&select.order_by, table)?,
            limit: select.limit,
            offset: select.offset,
        },
        filter: without_deleted(filter, table, select.include_deleted),
        table: Arc::clone(table),
    })
}

fn bind_columns(names: Option<&[String]>, table: &Table) -> Result<Vec<usize>, Error> {
    let Some(names) = names else {
        return Ok(table.every_column());
    };
    let mut columns = Vec::with_capacity(names.len().min(table.columns.len()));
    for name in names {
        let column = find_column(name, table)?;
        if columns.contains(&column) {
            let message = format!("columns has {} twice", shown(name));
            return Err(Error::new(Code::InvalidRequest, message));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The order asked for, completed with the primary key so that it is total.
fn bind_order(order_by: &[Order], table: &Table) -> Result<Vec<Sort>, Error> {
    let mut order: Vec<Sort> = Vec::with_capacity(order_by.len().min(table.columns.len()));
    for term in order_by {
        let column = find_column(&term.column, table)?;
        let kind = &table.columns[column].kind;
        // A key has an order whatever its kind, and is every order's last part.
        let has_order = kind.is_ordered() || *kind == super::Kind::Bool;
        if !has_order && !table.key.contains(&column) {
            return Err(mismatch(table, column, "of a kind that has an order"));
        }
        // A second term of the same column decides nothing.
        if order.iter().all(|sort| sort.column != column) {
            order.push(Sort {
                column,
                descending: term.descending,
            });
        }
    }
    for &column in &table.key {
        if order.iter().all(|sort| sort.column != column) {
            order.push(Sort {
                column,
                descending: false,
            });
        }
    }
    Ok(order)
}

fn bind_insert(
    insert: &Insert,
    upsert: bool,
    schema: &Schema,
    limits: &BindLimits,
) -> Result<Change, Error> {
    let table = find_table(&insert.table, schema)?;
    if insert.rows.len() > limits.rows_max {
        let message = format!("data holds more than {} rows", limits.rows_max);
        return Err(Error::new(Code::TooLarge, message));
    }
    let rows = insert.rows.iter().map(|row| rows::bind_new(row, table));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    if upsert {
        rows::refuse_equal_keys(&rows, table)?;
    }
    Ok(Change::Insert {
        table: Arc::clone(table),
        rows,
        single: insert.single,
        upsert,
    })
}

fn bind_update(update: &Update, schema: &Schema, limits: &BindLimits) -> Result<Change, Error> {
    let table = find_table(&update.table, schema)?;
    let filter = bind_bounded(update.filter.as_ref(), table, update.all, limits)?;
    Ok(Change::Update {
        set: rows::bind_changes(&update.data, table)?,
        single: filter.pinned_key(table).is_some(),
        filter: without_deleted(filter, table, update.include_deleted),
        table: Arc::clone(table),
    })
}

fn bind_delete(delete: &Delete, schema: &Schema, limits: &BindLimits) -> Result<Change, Error> {
    let table = find_table(&delete.table, schema)?;
    let filter = bind_bounded(delete.filter.as_ref(), table, delete.all, limits)?;
    let single = filter.pinned_key(table).is_some();
    let filter = without_deleted(filter, table, delete.include_deleted);
    let table = Arc::clone(table);
    Ok(if table.policy.soft_delete.is_some() && !delete.hard {
        Change::SoftDelete {
            table,
            filter,
            single,
        }
    } else {
        Change::Delete {
            table,
            filter,
            single,
        }
    })
}

/// The condition of an update or delete, which must not match everything by accident.
fn bind_bounded(
    condition: Option<&Where>,
    table: &Table,
    all: bool,
    limits: &BindLimits,
) -> Result<Filter, Error> {
    let filter = condition::bind(condition, table, limits)?;
    if !all && bounded::may_match_everything(&filter, table) {
        let message = format!(
            "the where can match every row of {}; if that is meant, add \"all\": true",
            shown(&table.name)
        );
        return Err(Error::new(Code::UnboundedWrite, message));
    }
    Ok(filter)
}

/// The filter that also skips soft-deleted rows, unless they are asked for.
fn without_deleted(filter: Filter, table: &Table, include_deleted: bool) -> Filter {
    let Some(column) = table.policy.soft_delete.filter(|_| !include_deleted) else {
        return filter;
    };
    let not_deleted = Filter::Test(Test {
        column,
        operator: Operator::IsNull,
        value: Value::Bool(true),
    });
    match filter {
        Filter::All(mut parts) => {
            parts.push(not_deleted);
            Filter::All(parts)
        }
        other => Filter::All(vec![other, not_deleted]),
    }
}

fn find_table<'a>(name: &str, schema: &'a Schema) -> Result<&'a Arc<Table>, Error> {
    schema.table(name).ok_or_else(|| {
        let message = format!("no table {}", shown(name));
        Error::new(Code::UnknownTable, message)
    })
}

fn find_column(name: &str, table: &Table) -> Result<usize, Error> {
    table.column(name).ok_or_else(|| {
        let known: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
        let message = format!(
            "{} has no column {}; it has {}",
            shown(&table.name),
            shown(name),
            known.join(", ")
        );
        Error::new(Code::UnknownColumn, message).with_details(json!({ "table": table.name }))
    })
}

/// The error for a value, or a use, that does not fit a column.
fn mismatch(table: &Table, column: usize, expected: &str) -> Error {
    let column = &table.columns[column].name;
    let message = format!(
        "{} of {} must be {expected}",
        shown(column),
        shown(&table.name)
    );
    Error::new(Code::TypeMismatch, message)
        .with_details(json!({ "table": table.name, "column": column }))
}

#[cfg(test)]
mod tests;
