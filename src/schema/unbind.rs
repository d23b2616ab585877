//! Making a bound request explicit for storage: keys, generated values, soft deletes and filters spelled
//! out, so that storage has nothing to decide that legacy could decide otherwise.

use serde_json::{Value, json};

use super::{Change, Filter, Read, ReadKind, Step, Table, Test, Write};
use crate::contract::{
    Condition, Count, Delete, Insert, Operator, Order, Query, Row, Select, Update, Where,
};

/// The wire form of a read, with its order where `ordered`. Soft deletion is part of the filter already.
/// Columns are always named: one that only storage has is not asked for, and one that it lacks is refused and
/// not left out in silence.
pub fn read_query(read: &Read, ordered: bool) -> Query {
    let filter = condition(&read.table, &read.filter);
    match &read.kind {
        ReadKind::Count => Query::Count(Count {
            table: read.table.name.clone(),
            filter,
            include_deleted: true,
        }),
        ReadKind::Rows {
            columns,
            order,
            limit,
            offset,
        } => Query::Select(Select {
            table: read.table.name.clone(),
            filter,
            columns: Some(
                columns
                    .iter()
                    .map(|&column| read.table.columns[column].name.clone())
                    .collect(),
            ),
            order_by: order
                .iter()
                .filter(|_| ordered)
                .map(|sort| Order {
                    column: read.table.columns[sort.column].name.clone(),
                    descending: sort.descending,
                })
                .collect(),
            limit: *limit,
            offset: *offset,
            include_deleted: true,
        }),
    }
}

/// The wire form of a whole write.
pub fn write_query(write: &Write, deleted_at: &str) -> Query {
    let mut queries: Vec<Query> = write
        .steps
        .iter()
        .map(|step| match step {
            Step::Change(change) => change_query(change, deleted_at),
            Step::Read(read) => read_query(read, true),
        })
        .collect();
    if !write.transaction && queries.len() == 1 {
        return queries.remove(0);
    }
    Query::Transaction(queries)
}

/// The wire form of one change. A soft delete is the update it stands for, with the time given.
fn change_query(change: &Change, deleted_at: &str) -> Query {
    match change {
        Change::Insert {
            table,
            rows,
            single,
            upsert,
        } => {
            let insert = Insert {
                table: table.name.clone(),
                rows: rows.clone(),
                single: *single,
            };
            if *upsert {
                Query::Upsert(insert)
            } else {
                Query::Insert(insert)
            }
        }
        Change::Update {
            table, filter, set, ..
        } => update(table, filter, set.clone()),
        Change::SoftDelete { table, filter, .. } => {
            update(table, filter, soft_delete_row(table, deleted_at))
        }
        Change::Delete { table, filter, .. } => Query::Delete(Delete {
            table: table.name.clone(),
            filter: condition(table, filter),
            hard: true,
            all: matches!(filter, Filter::All(parts) if parts.is_empty()),
            include_deleted: true,
        }),
    }
}

fn update(table: &Table, filter: &Filter, data: Row) -> Query {
    Query::Update(Update {
        table: table.name.clone(),
        filter: condition(table, filter),
        data,
        all: matches!(filter, Filter::All(parts) if parts.is_empty()),
        include_deleted: true,
    })
}

/// What a soft delete sets.
pub fn soft_delete_row(table: &Table, deleted_at: &str) -> Row {
    let mut row = Row::new();
    if let Some(column) = table.policy.soft_delete {
        row.insert(
            table.columns[column].name.clone(),
            Value::String(deleted_at.to_owned()),
        );
    }
    row
}

/// A filter as a wire condition; none when it matches everything.
fn condition(table: &Table, filter: &Filter) -> Option<Where> {
    match filter {
        Filter::All(parts) if parts.is_empty() => None,
        other => Some(to_where(table, other)),
    }
}

fn to_where(table: &Table, filter: &Filter) -> Where {
    match filter {
        Filter::All(parts) => Where::And(parts.iter().map(|part| to_where(table, part)).collect()),
        Filter::Any(parts) => Where::Or(parts.iter().map(|part| to_where(table, part)).collect()),
        Filter::Not(part) => Where::Not(Box::new(to_where(table, part))),
        Filter::Test(test) => to_test(table, test),
        Filter::Keys(keys) => keys_where(table, keys),
        Filter::After(_) => Where::And(Vec::new()),
    }
}

/// `IS NULL` is spelled as equality with null, which every service understands.
fn to_test(table: &Table, test: &Test) -> Where {
    let name = table.columns[test.column].name.clone();
    if test.operator == Operator::IsNull && test.value == Value::Bool(true) {
        return equal(name, Value::Null);
    }
    Where::Column(
        name,
        Condition {
            operator: test.operator,
            value: test.value.clone(),
        },
    )
}

fn equal(column: String, value: Value) -> Where {
    Where::Column(
        column,
        Condition {
            operator: Operator::Eq,
            value,
        },
    )
}

/// Rows by key: plain equality for one, `in` for many of one column, `or` for the rest.
fn keys_where(table: &Table, keys: &[Vec<Value>]) -> Where {
    let names: Vec<&str> = table
        .key_columns()
        .map(|column| column.name.as_str())
        .collect();
    if let ([name], true) = (names.as_slice(), keys.len() > 1) {
        let values: Vec<&Value> = keys.iter().filter_map(|key| key.first()).collect();
        return Where::Column(
            (*name).to_owned(),
            Condition {
                operator: Operator::In,
                value: json!(values),
            },
        );
    }
    let mut branches: Vec<Where> = keys
        .iter()
        .map(|key| {
            Where::And(
                names
                    .iter()
                    .zip(key)
                    .map(|(name, value)| equal((*name).to_owned(), value.clone()))
                    .collect(),
            )
        })
        .collect();
    if branches.len() == 1 {
        return branches.remove(0);
    }
    Where::Or(branches)
}
