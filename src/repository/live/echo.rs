//! Believing nothing: a reply of storage is applied to legacy only if it is the row that was written.
//!
//! Its keys are the intent's, the columns sent came back as sent, the others equal legacy's row, or are
//! ones that storage fills in by configuration, or (for a new row) by a default. A column that legacy does not
//! have is let pass if storage was lately seen to have it: nobody can have written it through the proxy, and it is
//! not applied.

use std::sync::Arc;

use serde_json::Value;

use super::plan::{Before, Part, Plan, Planned};
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
    for ((step, planned), reply) in plan.write.steps.iter().zip(&plan.steps).zip(replies) {
        let Step::Change(change) = step else { continue };
        let rows = rows(change, reply)?;
        match planned.part {
            Part::Asked => {}
            // One is missing: storage saw it otherwise, and what hangs on it is gone all the same.
            Part::Root | Part::Cleared if rows.len() < planned.keys.len() => {
                return Err(shape(change.table().name.clone()));
            }
            Part::Root | Part::Cleared => {}
            Part::Swept => {
                for image in swept(change, planned, &rows)? {
                    put(&mut images, image);
                }
                continue;
            }
        }
        for row in rows {
            for image in changed(
                change,
                planned,
                row,
                before,
                &images,
                &plan.deleted_at,
                known,
            )? {
                put(&mut images, image);
            }
        }
    }
    Ok(images)
}

/// A later image of a row replaces an earlier one.
fn put(images: &mut Vec<Image>, image: Image) {
    images.retain(|earlier| earlier.key != image.key || earlier.table.name != image.table.name);
    images.push(image);
}

/// Rows that were removed by key are gone, whether storage found them or had taken them along already; what it
/// had in them does not matter any more.
fn swept(change: &Change, planned: &Planned, rows: &[Row]) -> Result<Vec<Image>, EchoMismatch> {
    let table = change.table();
    let known = |row: &Row| find_key(table, &planned.keys, row).is_some();
    if !rows.iter().all(known) {
        return Err(shape(table.name.clone()));
    }
    let gone = planned.keys.iter().map(|key| gone(table, key));
    Ok(gone.collect())
}

fn gone(table: &Arc<Table>, key: &Key) -> Image {
    Image {
        table: Arc::clone(table),
        key: key.clone(),
        row: None,
    }
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

/// The images of a row that a change returned: of a moved one, its old key is gone.
fn changed(
    change: &Change,
    planned: &Planned,
    row: Row,
    before: &Before,
    so_far: &[Image],
    deleted_at: &str,
    known: &Known<'_>,
) -> Result<Vec<Image>, EchoMismatch> {
    // As it is now: since the write was bound, columns may have come or gone.
    let table = known.legacy.table(&change.table().name);
    let table = table.unwrap_or_else(|| change.table());
    let (from, keys) = match planned.keys.split_first() {
        Some((old, new)) if planned.moves => (Some(old), new),
        Some(_) | None => (None, &planned.keys[..]),
    };
    let key = find_key(table, keys, &row).ok_or_else(|| shape(table.name.clone()))?;
    let old = row_before(table, from.unwrap_or(&key), before, so_far);
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
    let image = Image {
        table: Arc::clone(table),
        key,
        row: (!matches!(change, Change::Delete { .. })).then_some(row),
    };
    let old_key = from.map(|key| gone(table, key));
    Ok(old_key.into_iter().chain([image]).collect())
}

/// The row as the steps before left it.
fn row_before<'a>(
    table: &Table,
    key: &Key,
    before: &'a Before,
    so_far: &'a [Image],
) -> Option<&'a Row> {
    let written = so_far
        .iter()
        .find(|image| image.key == *key && image.table.name == table.name);
    match written {
        Some(image) => image.row.as_ref(),
        None => before.get(&(table.name.clone(), key.clone())),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::{ID, schema, write};

    const OTHER: &str = "0190a5c8-7d3e-7c3e-8f00-ffffffffffff";

    fn key(id: &str) -> Key {
        Key(format!("[\"{id}\"]"))
    }

    fn planned(ids: &[&str], part: Part) -> Planned {
        Planned {
            keys: ids.iter().map(|id| key(id)).collect(),
            part,
            ..Planned::default()
        }
    }

    fn plan(query: Value, steps: Vec<Planned>) -> Plan {
        let write = write(query);
        Plan {
            asked_transaction: write.transaction,
            write,
            keys: Vec::new(),
            steps,
            bonds: crate::journal::Bonds::default(),
            deleted_at: String::new(),
        }
    }

    fn item(id: &str, campaign: &str) -> Value {
        json!({"id": id, "campaign_id": campaign})
    }

    fn campaign(name: &str, note: &str) -> Value {
        let schema = schema();
        let table = schema.table("campaigns").expect("a table");
        let columns = table.columns.iter();
        let mut row: Row = columns
            .map(|column| (column.name.clone(), Value::Null))
            .collect();
        for (column, value) in [("id", ID), ("name", name), ("note", note)] {
            row.insert(column.to_owned(), json!(value));
        }
        Value::Object(row)
    }

    fn before() -> Before {
        let rows = [
            ("items", item(ID, ID)),
            ("campaigns", campaign("old", "old")),
        ];
        let mut before = Before::new();
        for (table, row) in rows {
            if let Value::Object(row) = row {
                before.insert((table.to_owned(), key(ID)), row);
            }
        }
        before
    }

    /// Key and presence of each image, or the fields that are not believed.
    fn judged(plan: &Plan, reply: &Value) -> Result<Vec<(String, bool)>, Vec<String>> {
        let known = Known {
            legacy: &schema(),
            drift: &Found::default(),
        };
        let images = images(plan, &Reply::from_value(reply), &before(), &known);
        let images = images.map_err(|mismatch| mismatch.fields)?;
        let seen = images.into_iter();
        Ok(seen
            .map(|image| (image.key.0, image.row.is_some()))
            .collect())
    }

    #[test]
    fn a_moved_row_leaves_its_old_key() {
        let update =
            json!({"type": "update", "table": "items", "where": {"id": ID}, "data": {"id": OTHER}});
        let moved = Planned {
            moves: true,
            ..planned(&[ID, OTHER], Part::Asked)
        };
        let plan = plan(update, vec![moved]);
        let both = vec![(key(ID).0, false), (key(OTHER).0, true)];
        assert_eq!(judged(&plan, &item(OTHER, ID)), Ok(both));
        assert_eq!(
            judged(&plan, &item(OTHER, OTHER)),
            Err(vec!["campaign_id".to_owned()])
        );
        assert_eq!(judged(&plan, &item(ID, ID)), Err(vec![]), "it did not move");
        assert_eq!(judged(&plan, &Value::Null), Ok(vec![]), "it did not match");
    }

    #[test]
    fn what_was_removed_by_name_is_gone_though_storage_had_taken_it_along() {
        let delete = json!({"type": "delete", "table": "items", "where": {"id": ID}});
        let swept = plan(delete.clone(), vec![planned(&[ID], Part::Swept)]);
        let gone = Ok(vec![(key(ID).0, false)]);
        for reply in [Value::Null, json!([]), json!([item(ID, OTHER)])] {
            assert_eq!(judged(&swept, &reply), gone);
        }
        assert_eq!(judged(&swept, &json!([item(OTHER, ID)])), Err(vec![]));
        let root = plan(delete, vec![planned(&[ID], Part::Root)]);
        assert_eq!(judged(&root, &item(ID, ID)), gone);
        assert_eq!(
            judged(&root, &Value::Null),
            Err(vec![]),
            "what hung on it is gone"
        );
    }

    #[test]
    fn a_row_is_held_against_what_an_earlier_member_left() {
        let set = |data: Value| json!({"type": "update", "table": "campaigns", "where": {"id": ID}, "data": data});
        let members = [set(json!({"name": "new"})), set(json!({"note": "new"}))];
        let transaction = json!({"type": "transaction", "queries": members});
        let steps = vec![planned(&[ID], Part::Asked), planned(&[ID], Part::Asked)];
        let plan = plan(transaction, steps);
        let (first, second) = (campaign("new", "old"), campaign("new", "new"));
        let image = Ok(vec![(key(ID).0, true)]);
        assert_eq!(judged(&plan, &json!([first, second])), image);
        let forgotten = campaign("old", "new");
        let fields = Err(vec!["name".to_owned()]);
        assert_eq!(judged(&plan, &json!([first, forgotten])), fields);
    }
}
