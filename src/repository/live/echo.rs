//! Believing nothing: a reply of storage is applied to legacy only if it is the row that was written.
//!
//! Its keys are the intent's, the columns sent came back as sent, the others equal legacy's row, or are
//! ones that storage fills in by configuration, or (for a new row) by a default. A column that legacy does not
//! have is let pass if storage was lately seen to have it: nobody can have written it through the proxy, and it is
//! not applied.

use serde_json::Value;

use super::plan::{Before, Plan};
use crate::compare::values_equal;
use crate::contract::{Key, Reply, Row};
use crate::drift::Found;
use crate::legacy::Image;
use crate::schema::{Change, Generated, Schema, Step, Table};

/// A reply that is not the row that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::repository) struct EchoMismatch {
    /// The table.
    pub(in crate::repository) table: String,
    /// The row, when the reply names one of the write's.
    pub(in crate::repository) key: Option<Key>,
    /// Fields that differ; empty when the shape is wrong.
    pub(in crate::repository) fields: Vec<String>,
    /// All of them are there on one side only: columns may have come or gone on either.
    pub(in crate::repository) may_be_drift: bool,
}

/// What is known of both sides' columns.
pub(super) struct Known<'a> {
    /// Legacy's tables as they are.
    pub(super) legacy: &'a Schema,
    /// Where storage's are others.
    pub(super) drift: &'a Found,
}

/// How a field is not what was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It is there on one side only.
    OneSided,
    /// Its value is another.
    Value,
}

/// The rows that legacy must get, or what is wrong with the reply.
pub(super) fn images(
    plan: &Plan,
    reply: &Reply,
    before: &Before,
    known: &Known<'_>,
) -> Result<Vec<Image>, EchoMismatch> {
    let replies = split(plan, reply)?;
    let mut images: Vec<Image> = Vec::new();
    for ((step, keys), reply) in plan.write.steps.iter().zip(&plan.steps).zip(replies) {
        let Step::Change(change) = step else { continue };
        for row in rows(change, reply)? {
            let image = image(change, keys, row, before, &plan.deleted_at, known)?;
            images.retain(|earlier| {
                earlier.key != image.key || earlier.table.name != image.table.name
            });
            images.push(image);
        }
    }
    Ok(images)
}

fn split(plan: &Plan, reply: &Reply) -> Result<Vec<Value>, EchoMismatch> {
    let table = || {
        let first = plan.write.changes().next();
        first.map_or_else(String::new, |change| change.table().name.clone())
    };
    let value = reply.parse().map_err(|_| shape(table()))?;
    match (plan.write.transaction, value) {
        (false, only) => Ok(vec![only]),
        (true, Value::Array(replies)) if replies.len() == plan.write.steps.len() => Ok(replies),
        (true, _) => Err(shape(table())),
    }
}

fn shape(table: String) -> EchoMismatch {
    EchoMismatch {
        table,
        key: None,
        fields: Vec::new(),
        may_be_drift: false,
    }
}

fn rows(change: &Change, reply: Value) -> Result<Vec<Row>, EchoMismatch> {
    let object = |value| match value {
        Value::Object(row) => Ok(row),
        _ => Err(shape(change.table().name.clone())),
    };
    let rows: Vec<Row> = match reply {
        Value::Null => Vec::new(),
        Value::Array(rows) => rows.into_iter().map(object).collect::<Result<_, _>>()?,
        other => vec![object(other)?],
    };
    match change {
        Change::Insert { rows: sent, .. } if sent.len() != rows.len() => {
            Err(shape(change.table().name.clone()))
        }
        _ => Ok(rows),
    }
}

fn image(
    change: &Change,
    keys: &[Key],
    row: Row,
    before: &Before,
    deleted_at: &str,
    known: &Known<'_>,
) -> Result<Image, EchoMismatch> {
    // As it is now: since the write was bound, columns may have come or gone.
    let table = known.legacy.table(&change.table().name);
    let table = table.unwrap_or_else(|| change.table());
    let key = find_key(table, keys, &row).ok_or_else(|| shape(table.name.clone()))?;
    let old = before.get(&(table.name.clone(), key.clone()));
    let deleted = crate::schema::soft_delete_row(table, deleted_at);
    let sent = match change {
        Change::Insert { rows, .. } => rows
            .iter()
            .find(|sent| find_key(table, std::slice::from_ref(&key), sent).is_some()),
        Change::Update { set, .. } => Some(set),
        Change::SoftDelete { .. } => Some(&deleted),
        Change::Delete { .. } => None,
    };
    let wrong = differences(table, &row, sent, old, known.drift);
    if !wrong.is_empty() {
        return Err(EchoMismatch {
            table: table.name.clone(),
            key: Some(key),
            may_be_drift: wrong.iter().all(|(_, wrong)| *wrong == Wrong::OneSided),
            fields: wrong.into_iter().map(|(field, _)| field).collect(),
        });
    }
    Ok(Image {
        table: std::sync::Arc::clone(table),
        key,
        row: (!matches!(change, Change::Delete { .. })).then_some(row),
    })
}

/// The key among the intent's that a row has.
fn find_key(table: &Table, keys: &[Key], row: &Row) -> Option<Key> {
    keys.iter()
        .find(|key| {
            let values: Vec<Value> = serde_json::from_str(&key.0).unwrap_or_default();
            values.len() == table.key.len()
                && table.key_columns().zip(&values).all(|(column, value)| {
                    row.get(&column.name)
                        .is_some_and(|got| values_equal(&column.kind, got, value))
                })
        })
        .cloned()
}

fn differences(
    table: &Table,
    row: &Row,
    sent: Option<&Row>,
    old: Option<&Row>,
    drift: &Found,
) -> Vec<(String, Wrong)> {
    let mut fields: Vec<(String, Wrong)> = row
        .keys()
        .filter(|name| table.column(name).is_none())
        .filter(|name| !drift.was_only_in_storage(&table.name, name))
        .map(|name| (name.clone(), Wrong::OneSided))
        .collect();
    for (index, column) in table.columns.iter().enumerate() {
        let Some(got) = row.get(&column.name) else {
            fields.push((column.name.clone(), Wrong::OneSided));
            continue;
        };
        let filled = table.policy.filled_by_storage.contains(&index)
            || column.generated == Generated::Expression;
        let believed = match (sent.and_then(|sent| sent.get(&column.name)), old) {
            (Some(sent), _) => values_equal(&column.kind, got, sent),
            (None, Some(_)) if filled => true,
            (None, Some(old)) => match old.get(&column.name) {
                Some(old) => values_equal(&column.kind, got, old),
                // Legacy's row was read before the column came.
                None => {
                    fields.push((column.name.clone(), Wrong::OneSided));
                    continue;
                }
            },
            (None, None) => filled || column.has_default || got.is_null(),
        };
        if !believed {
            fields.push((column.name.clone(), Wrong::Value));
        }
    }
    fields
}
