//! What a write of `ramp_down` owes legacy: the keys of the rows that its reply says it touched.
//!
//! Of what storage's own foreign keys did besides the reply says nothing. It is found from the rows that are owed
//! (`legacy::hanging`), provided that those say that they left: the row may be there again when it is paid. Rows
//! that got other keys that way could not be found by any key that legacy knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::super::bonds::{Leaving, leaving};
use crate::contract::{Reply, Row};
use crate::journal::Left;
use crate::schema::{Change, OnChange, Reference, Schema, Step, Table, Write};

/// Rows of one table that a step touched.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) table: Arc<Table>,
    /// Each the key's column values, in key order.
    pub(super) keys: Vec<Vec<Value>>,
    pub(super) left: Left,
    /// They may have been created again after others, which may hang on them yet, were taken along with them.
    pub(super) created: bool,
}

/// How a row lets go of what refers to it: it goes, or these columns of it change.
type LetsGo = Option<BTreeSet<String>>;

/// The rows that a reply says were touched, by step; why not, where that cannot be told.
pub(super) fn touched_rows(
    schema: &Schema,
    write: &Write,
    reply: &Reply,
) -> Result<Vec<Touched>, String> {
    let value = reply.parse().map_err(|error| error.to_string())?;
    let replies: Vec<Value> = match (write.transaction, value) {
        (true, Value::Array(replies)) => replies,
        (_, only) => vec![only],
    };
    let mut touched = Vec::new();
    for (step, reply) in write.steps.iter().zip(replies) {
        let Step::Change(change) = step else { continue };
        let rows = rows_of(reply)?;
        if !rows.is_empty() {
            touched.push(touched_by(schema, change, &rows)?);
        }
    }
    Ok(touched)
}

fn rows_of(reply: Value) -> Result<Vec<Row>, String> {
    match reply {
        Value::Null => Ok(Vec::new()),
        Value::Object(row) => Ok(vec![row]),
        Value::Array(rows) => Ok(rows
            .into_iter()
            .filter_map(|row| match row {
                Value::Object(row) => Some(row),
                _ => None,
            })
            .collect()),
        _ => Err("storage's reply is not a row".to_owned()),
    }
}

fn touched_by(schema: &Schema, change: &Change, rows: &[Row]) -> Result<Touched, String> {
    let table = change.table();
    let is_key = |name: &String| table.key_columns().any(|column| column.name == *name);
    let keys = match change {
        // The reply has the keys that the rows have since; the old ones are owed as well.
        Change::Update { set, .. } if set.keys().any(is_key) => {
            change.keys().ok_or("it changed keys without naming them")?
        }
        Change::Insert { .. }
        | Change::Update { .. }
        | Change::Delete { .. }
        | Change::SoftDelete { .. } => rows
            .iter()
            .map(|row| table.key_of(row))
            .collect::<Option<_>>()
            .ok_or("storage's reply lacks the key")?,
    };
    let left = match leaving(change, schema) {
        Leaving::Nothing => Left::No,
        Leaving::Rows | Leaving::Columns => Left::ByNow,
    };
    if left != Left::No && rekeys(schema, table, lets_go(change)) {
        return Err("rows that refer to it may have other keys since".to_owned());
    }
    let creates = match change {
        Change::Insert { .. } => true,
        Change::Update { set, .. } => set.keys().any(is_key),
        Change::Delete { .. } | Change::SoftDelete { .. } => false,
    };
    Ok(Touched {
        table: Arc::clone(table),
        keys,
        left,
        created: creates && schema.is_between(table),
    })
}

fn lets_go(change: &Change) -> LetsGo {
    match change {
        Change::Delete { .. } => None,
        Change::Update { set, .. } => Some(set.keys().cloned().collect()),
        Change::Insert { rows, .. } => Some(rows.iter().flat_map(Row::keys).cloned().collect()),
        Change::SoftDelete { .. } => Some(BTreeSet::new()),
    }
}

/// Whether some row gets another key when a row of this table lets go, however far away.
fn rekeys(schema: &Schema, table: &Table, lets_go: LetsGo) -> bool {
    let mut seen = BTreeSet::new();
    let mut reached = vec![(table.name.clone(), lets_go)];
    while let Some((parent, lets_go)) = reached.pop() {
        for child in schema.tables.values() {
            let references = child.references.iter();
            for reference in references.filter(|reference| reference.table == parent) {
                let Some(next) = follows(child, reference, &lets_go) else {
                    continue;
                };
                let is_changed = |column: &usize| {
                    let name = &child.columns[*column].name;
                    next.as_ref().is_some_and(|changed| changed.contains(name))
                };
                if child.key.iter().any(is_changed) {
                    return true;
                }
                if seen.insert((child.name.clone(), next.clone())) {
                    reached.push((child.name.clone(), next));
                }
            }
        }
    }
    false
}

/// What a row of `child` does when one that it refers to lets go; nothing where the foreign key does not act.
fn follows(child: &Table, reference: &Reference, lets_go: &LetsGo) -> Option<LetsGo> {
    let (action, set) = match lets_go {
        None => (reference.on_delete, &reference.clears),
        Some(columns) => {
            let mut target = reference.target.iter();
            target.find(|name| columns.contains(*name))?;
            (reference.on_update, &reference.columns)
        }
    };
    match action {
        OnChange::Refuse => None,
        OnChange::Cascade if lets_go.is_none() => Some(None),
        OnChange::Cascade | OnChange::SetNull | OnChange::SetDefault => {
            let names = set.iter().map(|&column| child.columns[column].name.clone());
            Some(Some(names.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::{ID, schema, write};

    const OTHER: &str = "0190a5c8-7d3e-7c3e-8f00-ffffffffffff";

    fn touched(schema: &Schema, query: Value, reply: Value) -> Result<(Value, Left), String> {
        let reply = Reply::from_json(reply.to_string());
        let mut touched = touched_rows(schema, &write(query), &reply)?;
        let one = touched.remove(0);
        assert!(touched.is_empty());
        Ok((json!(one.keys), one.left))
    }

    /// The schema, with one thing changed about the foreign key of `items`.
    fn with(alter: impl Fn(&mut Table)) -> Schema {
        let mut schema = schema();
        let items = schema.tables.get_mut("items").expect("a table");
        alter(Arc::make_mut(items));
        schema
    }

    fn remove() -> Value {
        json!({"type": "delete", "table": "campaigns", "where": {"id": ID}, "hard": true})
    }

    fn rekey(filter: Value) -> Value {
        json!({"type": "update", "table": "campaigns", "where": filter, "data": {"id": OTHER}})
    }

    #[test]
    fn a_row_that_is_removed_says_that_it_left_and_a_new_one_does_not() {
        let removed = touched(&schema(), remove(), json!({"id": ID, "name": "x"}));
        assert_eq!(removed, Ok((json!([[ID]]), Left::ByNow)));
        let item = json!({"id": ID, "campaign_id": OTHER});
        let insert = json!({"type": "insert", "table": "items", "data": item});
        let inserted = touched(&schema(), insert, item);
        assert_eq!(inserted, Ok((json!([[ID]]), Left::No)));
    }

    #[test]
    fn rows_are_created_by_inserts_and_new_keys_where_they_may_have_been_taken_along_before() {
        let mut between = schema();
        let events = between.tables.get_mut("events").expect("a table");
        Arc::make_mut(events).references.push(Reference {
            columns: vec![0],
            table: "items".to_owned(),
            target: vec!["id".to_owned()],
            on_delete: OnChange::SetNull,
            on_update: OnChange::Refuse,
            clears: vec![0],
        });
        let creates = |schema: &Schema, query: Value, reply: Value| {
            let reply = Reply::from_json(reply.to_string());
            let touched = touched_rows(schema, &write(query), &reply);
            touched.map(|touched| touched[0].created)
        };
        let item = json!({"id": ID, "campaign_id": OTHER});
        let by = |kind: &str| json!({"type": kind, "table": "items", "data": item});
        for kind in ["insert", "upsert"] {
            assert_eq!(creates(&between, by(kind), item.clone()), Ok(true));
            assert_eq!(creates(&schema(), by(kind), item.clone()), Ok(false));
        }
        let set =
            |data| json!({"type": "update", "table": "items", "where": {"id": ID}, "data": data});
        let moved = creates(&between, set(json!({"id": OTHER})), item.clone());
        assert_eq!(moved, Ok(true));
        let other = creates(&between, set(json!({"campaign_id": OTHER})), item.clone());
        assert_eq!(other, Ok(false));
        let campaign = json!({"id": ID, "name": "x"});
        let root = json!({"type": "insert", "table": "campaigns", "data": campaign});
        assert_eq!(creates(&between, root, campaign), Ok(false));
    }

    #[test]
    fn a_changed_key_owes_the_old_one_too_if_the_write_names_it() {
        let reply = json!({"id": OTHER, "name": "x"});
        let moved = touched(&schema(), rekey(json!({"id": ID})), reply.clone());
        assert_eq!(moved, Ok((json!([[ID], [OTHER]]), Left::ByNow)));
        assert!(touched(&schema(), rekey(json!({"name": "x"})), json!([reply])).is_err());
        let none = touched_rows(
            &schema(),
            &write(rekey(json!({"name": "x"}))),
            &Reply::from_json("[]".to_owned()),
        );
        assert!(none.is_ok_and(|none| none.is_empty()));
    }

    #[test]
    fn what_gives_other_rows_new_keys_cannot_be_told() {
        let follows = with(|items| {
            items.key = vec![1, 0];
            items.references[0].on_update = OnChange::Cascade;
        });
        let reply = json!({"id": OTHER, "name": "x"});
        assert!(touched(&follows, rekey(json!({"id": ID})), reply).is_err());
        let reply = json!({"id": ID, "name": "x"});
        assert!(touched(&follows, remove(), reply.clone()).is_ok());
        let defaulted = with(|items| {
            items.key = vec![1, 0];
            items.references[0].on_delete = OnChange::SetDefault;
        });
        assert!(touched(&defaulted, remove(), reply).is_err());
    }
}
