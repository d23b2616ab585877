//! How the replies to one read differ.
//!
//! Equal replies, the usual case, are told by one pass side by side. Only when that fails are rows matched
//! by key, so that one row too few is reported as that and not as every later row differing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Value;

use super::{Difference, DifferenceKind, FieldDiff, FieldKind, Sample, row_diff};
use crate::contract::Row;
use crate::schema::{Read, ReadKind, Table};

/// Most rows that a difference shows.
const SAMPLES_MAX: usize = 10;
/// Most fields that a sample shows.
const SAMPLE_FIELDS_MAX: usize = 32;

/// Compares the secondary's reply to a read with the authority's. Equal replies give the columns that
/// differed but are ignored by the table's policy.
///
/// # Errors
/// The difference.
pub fn replies_equal(
    read: &Read,
    authority: &Value,
    secondary: &Value,
) -> Result<Vec<String>, Difference> {
    match &read.kind {
        ReadKind::Count => counts_equal(authority, secondary).map(|()| Vec::new()),
        ReadKind::Rows { columns, .. } => {
            let (Some(authority), Some(secondary)) = (as_rows(authority), as_rows(secondary))
            else {
                return Err(one(DifferenceKind::Shape));
            };
            let has_key = read.table.key.iter().all(|index| columns.contains(index));
            compare_rows(&read.table, has_key, &authority, &secondary)
        }
    }
}

fn counts_equal(authority: &Value, secondary: &Value) -> Result<(), Difference> {
    let count = |reply: &Value| reply.get("count").and_then(Value::as_u64);
    match (count(authority), count(secondary)) {
        (Some(a), Some(b)) if a == b => Ok(()),
        (Some(_), Some(_)) => Err(one(DifferenceKind::Count)),
        _ => Err(one(DifferenceKind::Shape)),
    }
}

fn as_rows(reply: &Value) -> Option<Vec<&Row>> {
    reply.as_array()?.iter().map(Value::as_object).collect()
}

/// A difference that is of the whole reply.
fn one(kind: DifferenceKind) -> Difference {
    Difference {
        kind,
        rows: 1,
        samples: Vec::new(),
    }
}

fn compare_rows(
    table: &Table,
    has_key: bool,
    authority: &[&Row],
    secondary: &[&Row],
) -> Result<Vec<String>, Difference> {
    let mut found = Found::default();
    side_by_side(table, has_key, authority, secondary, &mut found);
    if found.rows > 0 && has_key {
        found = Found::default();
        by_key(table, authority, secondary, &mut found);
    }
    match found.kind {
        None => Ok(found.ignored),
        Some(kind) => Err(Difference {
            kind,
            rows: found.rows,
            samples: found.samples,
        }),
    }
}

/// The differences found so far.
#[derive(Default)]
struct Found {
    kind: Option<DifferenceKind>,
    rows: usize,
    samples: Vec<Sample>,
    ignored: Vec<String>,
}

impl Found {
    fn add(&mut self, kind: DifferenceKind, key: Option<Vec<Value>>, mut fields: Vec<FieldDiff>) {
        self.kind = Some(self.kind.map_or(kind, |gravest| gravest.min(kind)));
        self.rows += 1;
        if self.samples.len() < SAMPLES_MAX {
            fields.truncate(SAMPLE_FIELDS_MAX);
            self.samples.push(Sample { kind, key, fields });
        }
    }

    fn add_row(&mut self, table: &Table, has_key: bool, authority: &Row, secondary: &Row) {
        let diff = row_diff(table, authority, secondary);
        for column in diff.ignored {
            if !self.ignored.contains(&column) {
                self.ignored.push(column);
            }
        }
        if let Some(kind) = diff.kind {
            let key = has_key.then(|| table.key_of(authority)).flatten();
            self.add(kind, key, diff.fields);
        }
    }
}

fn side_by_side(
    table: &Table,
    has_key: bool,
    authority: &[&Row],
    secondary: &[&Row],
    found: &mut Found,
) {
    for (mine, theirs) in authority.iter().zip(secondary) {
        found.add_row(table, has_key, mine, theirs);
    }
    let paired = authority.len().min(secondary.len());
    for _ in paired..authority.len() {
        found.add(DifferenceKind::Missing, None, Vec::new());
    }
    for _ in paired..secondary.len() {
        found.add(DifferenceKind::Extra, None, Vec::new());
    }
}

fn by_key(table: &Table, authority: &[&Row], secondary: &[&Row], found: &mut Found) {
    let identity = |row: &Row| table.key_of(row).map(|key| table.key_identity(&key));
    let mut theirs: HashMap<String, (usize, &Row)> = HashMap::with_capacity(secondary.len());
    let mut places = Vec::with_capacity(authority.len());
    for (place, row) in secondary.iter().enumerate() {
        let Some(identity) = identity(row) else {
            // A row without its key matches none.
            found.add(DifferenceKind::Extra, None, missing_key(table, row));
            continue;
        };
        match theirs.entry(identity) {
            Entry::Vacant(vacant) => {
                vacant.insert((place, *row));
            }
            Entry::Occupied(_) => {
                found.add(DifferenceKind::Extra, table.key_of(row), Vec::new());
            }
        }
    }
    for row in authority {
        match identity(row).and_then(|identity| theirs.remove(&identity)) {
            Some((place, other)) => {
                places.push((place, *row));
                found.add_row(table, true, row, other);
            }
            None => found.add(DifferenceKind::Missing, table.key_of(row), Vec::new()),
        }
    }
    let mut left: Vec<_> = theirs.into_values().collect();
    left.sort_unstable_by_key(|(place, _)| *place);
    for (_, row) in left {
        found.add(DifferenceKind::Extra, table.key_of(row), Vec::new());
    }
    for pair in places.windows(2) {
        if let [(before, _), (after, row)] = pair
            && before > after
        {
            found.add(DifferenceKind::Order, table.key_of(row), Vec::new());
        }
    }
}

fn missing_key(table: &Table, row: &Row) -> Vec<FieldDiff> {
    let lacking = table.key_columns().filter(|c| !row.contains_key(&c.name));
    lacking
        .map(|column| FieldDiff {
            column: column.name.clone(),
            kind: FieldKind::Missing,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::fixture::read;

    fn compare(
        columns: Value,
        authority: Value,
        secondary: Value,
    ) -> Result<Vec<String>, Difference> {
        let read = read(json!({"type": "select", "table": "pairs", "columns": columns}));
        replies_equal(&read, &authority, &secondary)
    }

    fn row(a: i32, b: &str, amount: f64) -> Value {
        json!({"a": a, "b": b, "amount": amount})
    }

    fn difference(authority: Value, secondary: Value) -> Difference {
        compare(Value::Null, authority, secondary).unwrap_err()
    }

    fn kinds(difference: &Difference) -> Vec<(&str, Option<Value>)> {
        let samples = difference.samples.iter();
        samples
            .map(|sample| {
                (
                    sample.kind.as_str(),
                    sample.key.as_ref().map(|key| json!(key)),
                )
            })
            .collect()
    }

    #[test]
    fn equal_replies_are_equal() {
        let reply = json!([row(1, "x", 1.0), row(2, "y", 2.0)]);
        assert_eq!(compare(Value::Null, reply.clone(), reply), Ok(vec![]));
        assert_eq!(compare(Value::Null, json!([]), json!([])), Ok(vec![]));
    }

    #[test]
    fn a_row_too_few_or_too_many_is_reported_as_that_one_row() {
        let all = json!([row(1, "x", 1.0), row(2, "y", 2.0), row(3, "z", 3.0)]);
        let fewer = json!([row(2, "y", 2.0), row(3, "z", 3.0)]);
        let missing = difference(all.clone(), fewer.clone());
        assert_eq!((missing.kind, missing.rows), (DifferenceKind::Missing, 1));
        assert_eq!(kinds(&missing), [("missing", Some(json!([1, "x"])))]);
        let extra = difference(fewer, all);
        assert_eq!(kinds(&extra), [("extra", Some(json!([1, "x"])))]);
    }

    #[test]
    fn a_field_is_reported_with_its_row_and_name_and_without_its_value() {
        let found = difference(
            json!([row(1, "x", 1.0), row(2, "y", 2.0)]),
            json!([row(1, "x", 1.0), row(2, "y", 777.0)]),
        );
        assert_eq!(kinds(&found), [("field", Some(json!([2, "y"])))]);
        assert_eq!(found.samples[0].fields[0].column, "amount");
        assert_eq!(found.samples[0].fields[0].kind.as_str(), "value");
        assert!(!format!("{found:?}").contains("777"));
    }

    #[test]
    fn another_order_is_reported_as_order() {
        let found = difference(
            json!([row(1, "x", 1.0), row(2, "y", 2.0), row(3, "z", 3.0)]),
            json!([row(2, "y", 2.0), row(1, "x", 1.0), row(3, "z", 3.0)]),
        );
        assert_eq!(found.kind, DifferenceKind::Order);
        assert_eq!(found.rows, 1);
    }

    #[test]
    fn the_gravest_kind_names_the_difference() {
        let found = difference(
            json!([row(1, "x", 1.0), row(2, "y", 2.0)]),
            json!([row(2, "y", 9.0), row(3, "z", 3.0)]),
        );
        assert_eq!(found.kind, DifferenceKind::Missing);
        assert_eq!(found.rows, 3);
    }

    #[test]
    fn a_row_sent_twice_is_extra_and_one_without_its_key_matches_none() {
        let one = json!([row(1, "x", 1.0)]);
        let twice = difference(one.clone(), json!([row(1, "x", 1.0), row(1, "x", 1.0)]));
        assert_eq!(kinds(&twice), [("extra", Some(json!([1, "x"])))]);
        let found = difference(one, json!([{"a": 1, "amount": 1.0}]));
        assert_eq!(found.samples[0].fields[0].kind, FieldKind::Missing);
        assert_eq!(found.rows, 2);
    }

    #[test]
    fn without_the_key_rows_are_compared_side_by_side() {
        let amounts = |amounts: &[i32]| {
            json!(
                amounts
                    .iter()
                    .map(|a| json!({"amount": a}))
                    .collect::<Vec<_>>()
            )
        };
        let columns = json!(["amount"]);
        assert!(compare(columns.clone(), amounts(&[1, 2]), amounts(&[1, 2])).is_ok());
        let fewer = compare(columns.clone(), amounts(&[1, 2]), amounts(&[1])).unwrap_err();
        assert_eq!(kinds(&fewer), [("missing", None)]);
        let other = compare(columns, amounts(&[1, 2]), amounts(&[1, 3])).unwrap_err();
        assert_eq!(kinds(&other), [("field", None)]);
    }

    #[test]
    fn ignored_columns_are_named() {
        let read =
            read(json!({"type": "select", "table": "campaigns", "columns": ["name", "note"]}));
        let reply = |note: &str| json!([{"name": "a", "note": note}]);
        assert_eq!(
            replies_equal(&read, &reply("x"), &reply("y")),
            Ok(vec!["note".to_owned()])
        );
    }

    #[test]
    fn counts_are_compared_as_counts() {
        let read = read(json!({"type": "count", "table": "pairs"}));
        let compare =
            |a: Value, b: Value| replies_equal(&read, &a, &b).map_err(|d| d.kind.as_str());
        assert_eq!(
            compare(json!({"count": 3}), json!({"count": 3})),
            Ok(vec![])
        );
        assert_eq!(
            compare(json!({"count": 3}), json!({"count": 4})),
            Err("count")
        );
        assert_eq!(compare(json!({"count": 3}), json!([])), Err("shape"));
    }

    #[test]
    fn what_is_not_rows_has_the_wrong_shape() {
        for reply in [Value::Null, json!({"rows": []}), json!([1])] {
            assert_eq!(difference(json!([]), reply).kind, DifferenceKind::Shape);
        }
    }

    #[test]
    fn samples_are_few_and_rows_are_counted() {
        let rows: Vec<Value> = (0..100).map(|a| row(a, "x", 1.0)).collect();
        let found = difference(json!(rows), json!([]));
        assert_eq!((found.rows, found.samples.len()), (100, SAMPLES_MAX));
    }
}
