//! What a change means to relations that act, as far as the schema alone can tell: which of its rows others may
//! hang on, and which rows it makes others point at.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::contract::Row;
use crate::schema::{Change, OnChange, Reference, Schema, Table};

/// What others point at, of a change's rows.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// Stays, or nothing can hang on it.
    #[default]
    Nothing,
    /// Goes with the rows.
    Rows,
    /// Is set anew: keys, or other columns that a relation acts on.
    Columns,
}

/// Rows that a change points at.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pointed {
    pub(super) table: Arc<Table>,
    /// Their key; none where only a database knows which row it is.
    pub(super) key: Option<Vec<Value>>,
}

/// How much of a row is given.
#[derive(Clone, Copy)]
enum Given {
    /// All; what is left out is NULL or a default.
    Whole,
    /// All of a new row, or some columns of one that exists.
    WholeOrPart,
    /// Some columns of one that exists.
    Part,
}

/// Whether a foreign key does anything to its rows.
pub(super) fn acts(reference: &Reference) -> bool {
    reference.on_delete != OnChange::Refuse || reference.on_update != OnChange::Refuse
}

/// Whether it does when one of these columns that it points at changes.
pub(super) fn acts_on_update<'a>(
    reference: &Reference,
    mut columns: impl Iterator<Item = &'a String>,
) -> bool {
    reference.on_update != OnChange::Refuse && columns.any(|name| reference.target.contains(name))
}

/// What others may hang on that the change takes away.
pub(super) fn leaving(change: &Change, schema: &Schema) -> Leaving {
    let table = change.table();
    let is_key = |name: &String| table.key_columns().any(|column| column.name == *name);
    let sets = |rows: &[&Row]| {
        let names = || rows.iter().flat_map(|row| row.keys());
        is_pointed_at(table, schema, |reference| {
            acts_on_update(reference, names().filter(|name| !is_key(name)))
        })
    };
    let (going, leaving) = match change {
        Change::Delete { .. } => {
            let acts = |reference: &Reference| reference.on_delete != OnChange::Refuse;
            (is_pointed_at(table, schema, acts), Leaving::Rows)
        }
        Change::Update { set, .. } => {
            let moves = set.keys().any(is_key) && is_pointed_at(table, schema, acts);
            (moves || sets(&[set]), Leaving::Columns)
        }
        Change::Insert { rows, upsert, .. } => {
            let rows: Vec<&Row> = rows.iter().collect();
            (*upsert && sets(&rows), Leaving::Columns)
        }
        Change::SoftDelete { .. } => (false, Leaving::Nothing),
    };
    if going { leaving } else { Leaving::Nothing }
}

fn is_pointed_at(table: &Table, schema: &Schema, by: impl Fn(&Reference) -> bool) -> bool {
    let mut references = schema.tables.values().flat_map(|child| &child.references);
    references.any(|reference| reference.table == table.name && by(reference))
}

/// The tables whose rows may hang on rows of these, however far away.
pub(super) fn hanging<'a>(
    tables: impl IntoIterator<Item = &'a str>,
    schema: &Schema,
) -> BTreeSet<String> {
    let mut hanging = BTreeSet::new();
    let mut reached: Vec<String> = tables.into_iter().map(str::to_owned).collect();
    while let Some(parent) = reached.pop() {
        for child in schema.tables.values() {
            let mut references = child.references.iter();
            if references.any(|reference| reference.table == parent && acts(reference))
                && hanging.insert(child.name.clone())
            {
                reached.push(child.name.clone());
            }
        }
    }
    hanging
}

/// What the change makes rows point at through relations that act.
pub(super) fn pointed(change: &Change, schema: &Schema) -> Vec<Pointed> {
    let (rows, given): (&[Row], Given) = match change {
        Change::Insert { rows, upsert, .. } if *upsert => (rows, Given::WholeOrPart),
        Change::Insert { rows, .. } => (rows, Given::Whole),
        Change::Update { set, .. } => (std::slice::from_ref(set), Given::Part),
        Change::Delete { .. } | Change::SoftDelete { .. } => return Vec::new(),
    };
    let mut pointed = Vec::new();
    for reference in change.table().references.iter().filter(|one| acts(one)) {
        // A table that is not configured is written by nobody here.
        let Some(parent) = schema.table(&reference.table) else {
            continue;
        };
        for row in rows {
            let Some(key) = aim(change.table(), reference, parent, row, given) else {
                continue;
            };
            let one = Pointed {
                table: Arc::clone(parent),
                key,
            };
            if !pointed.contains(&one) {
                pointed.push(one);
            }
        }
    }
    pointed
}

/// What a row points at through a foreign key: nothing that is new, a row by its key, or a row that only a
/// database could find.
fn aim(
    table: &Table,
    reference: &Reference,
    parent: &Table,
    row: &Row,
    given: Given,
) -> Option<Option<Vec<Value>>> {
    let mut values = Vec::with_capacity(reference.columns.len());
    let (mut untold, mut by_default) = (false, false);
    for &index in &reference.columns {
        let column = &table.columns[index];
        match row.get(&column.name) {
            // With one NULL it points nowhere.
            Some(Value::Null) => return None,
            Some(value) => values.push(value),
            None => {
                untold = true;
                by_default |= column.has_default;
                if matches!(given, Given::Whole) && !column.has_default {
                    return None;
                }
            }
        }
    }
    let as_it_was = match given {
        Given::Whole => false,
        Given::WholeOrPart => values.is_empty() && !by_default,
        Given::Part => values.is_empty(),
    };
    if as_it_was {
        return None;
    }
    if untold {
        return Some(None);
    }
    let at = |name: &String| reference.target.iter().position(|target| target == name);
    let key = parent
        .key_columns()
        .map(|column| at(&column.name).map(|place| values[place].clone()));
    Some(match reference.target.len() == parent.key.len() {
        true => key.collect(),
        false => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::Query;
    use crate::schema::fixture::{ID, change, schema};
    use crate::schema::{BindLimits, Bound, Step, bind};

    fn of(query: Value) -> Change {
        change(query)
    }

    fn aims(query: Value) -> Vec<(String, Option<Value>)> {
        let pointed = pointed(&of(query), &schema());
        pointed
            .into_iter()
            .map(|one| (one.table.name.clone(), one.key.map(Value::from)))
            .collect()
    }

    /// The schema, with one thing changed about the foreign key of `items`.
    fn with(alter: impl Fn(&mut Table)) -> Schema {
        let mut schema = schema();
        let items = schema.tables.get_mut("items").expect("a table");
        alter(Arc::make_mut(items));
        schema
    }

    fn bound_to(schema: &Schema, query: Value) -> Change {
        let query = Query::from_value(query).expect("a query");
        match bind(&query, schema, &BindLimits::default()) {
            Ok(Bound::Write(mut write)) => match write.steps.remove(0) {
                Step::Change(change) => change,
                Step::Read(read) => panic!("not a change: {read:?}"),
            },
            other => panic!("not a write: {other:?}"),
        }
    }

    #[test]
    fn rows_leave_when_they_are_removed_and_others_may_hang_on_them() {
        let hard = |table: &str| json!({"type": "delete", "table": table, "where": {"id": ID}, "hard": true});
        assert_eq!(leaving(&of(hard("campaigns")), &schema()), Leaving::Rows);
        assert_eq!(leaving(&of(hard("items")), &schema()), Leaving::Nothing);
        let soft = json!({"type": "delete", "table": "campaigns", "where": {"id": ID}});
        assert_eq!(leaving(&of(soft), &schema()), Leaving::Nothing);
    }

    #[test]
    fn a_key_leaves_when_it_is_set_and_another_column_only_where_a_relation_follows_it() {
        let set = |data| json!({"type": "update", "table": "campaigns", "where": {"id": ID}, "data": data});
        let key = of(set(json!({"id": ID})));
        assert_eq!(leaving(&key, &schema()), Leaving::Columns);
        let name = of(set(json!({"name": "x"})));
        assert_eq!(leaving(&name, &schema()), Leaving::Nothing);
        let by_name = with(|items| {
            items.references[0].target = vec!["name".to_owned()];
            items.references[0].on_update = OnChange::Cascade;
        });
        assert_eq!(leaving(&name, &by_name), Leaving::Columns);
        let upsert =
            json!({"type": "upsert", "table": "campaigns", "data": {"id": ID, "name": "x"}});
        assert_eq!(leaving(&of(upsert.clone()), &by_name), Leaving::Columns);
        assert_eq!(leaving(&of(upsert), &schema()), Leaving::Nothing);
    }

    #[test]
    fn a_row_points_at_the_key_that_it_is_given() {
        let insert =
            json!({"type": "insert", "table": "items", "data": {"id": ID, "campaign_id": ID}});
        assert_eq!(aims(insert), [("campaigns".to_owned(), Some(json!([ID])))]);
        let update =
            |data| json!({"type": "update", "table": "items", "where": {"id": ID}, "data": data});
        assert_eq!(aims(update(json!({"campaign_id": ID}))).len(), 1);
        assert!(
            aims(update(json!({"id": ID}))).is_empty(),
            "it points where it did"
        );
        let campaign =
            json!({"type": "insert", "table": "campaigns", "data": {"id": ID, "name": "x"}});
        assert!(aims(campaign).is_empty());
    }

    #[test]
    fn what_only_a_database_knows_may_be_any_row_of_the_table() {
        let item = json!({"id": ID, "campaign_id": ID});
        let insert = json!({"type": "insert", "table": "items", "data": item});
        let by_name = with(|items| items.references[0].target = vec!["name".to_owned()]);
        let aims = pointed(&bound_to(&by_name, insert), &by_name);
        assert_eq!(aims[0].key, None);
        let by_default = with(|items| {
            items.columns[1].has_default = true;
            items.columns[1].nullable = true;
        });
        let upsert = json!({"type": "upsert", "table": "items", "data": {"id": ID}});
        let aims = pointed(&bound_to(&by_default, upsert), &by_default);
        assert_eq!(aims[0].key, None);
    }

    #[test]
    fn tables_hang_on_others_through_any_number_of_relations_and_circles_end() {
        let mut schema = schema();
        let reference = |table: &str| Reference {
            columns: vec![0],
            table: table.to_owned(),
            target: vec!["id".to_owned()],
            on_delete: OnChange::SetNull,
            on_update: OnChange::Refuse,
            clears: vec![0],
        };
        for (child, parent) in [("events", "items"), ("campaigns", "events")] {
            let table = schema.tables.get_mut(child).expect("a table");
            Arc::make_mut(table).references.push(reference(parent));
        }
        let hanging = hanging(["campaigns"], &schema);
        assert_eq!(Vec::from_iter(hanging), ["campaigns", "events", "items"]);
    }
}
