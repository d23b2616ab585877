//! How two rows of one table differ.

use super::{FieldDiff, FieldKind, values_equal};
use crate::contract::Row;
use crate::schema::{Kind, Table};

/// The differences of two rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowDiff {
    /// Fields that differ and count.
    pub fields: Vec<FieldDiff>,
    /// Columns that differ and do not count, by the table's policy.
    pub ignored: Vec<String>,
}

impl RowDiff {
    /// Whether nothing that counts differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.fields.is_empty()
    }
}

/// Compares the secondary's row with the authority's: the columns that either of them has. NULL and
/// missing are different; members that are no columns are compared as JSON.
#[must_use]
pub fn row_diff(table: &Table, authority: &Row, secondary: &Row) -> RowDiff {
    let mut diff = RowDiff::default();
    for (name, value) in authority {
        let index = table.column(name);
        let kind = index.map_or(&Kind::Json(true), |index| &table.columns[index].kind);
        match secondary.get(name) {
            Some(other) if values_equal(kind, value, other) => {}
            Some(_) => add(&mut diff, table, index, name, FieldKind::Value),
            None => add(&mut diff, table, index, name, FieldKind::Missing),
        }
    }
    for name in secondary.keys() {
        if !authority.contains_key(name) {
            add(&mut diff, table, table.column(name), name, FieldKind::Extra);
        }
    }
    diff
}

fn add(diff: &mut RowDiff, table: &Table, index: Option<usize>, name: &str, kind: FieldKind) {
    if index.is_some_and(|index| table.policy.ignore.contains(&index)) {
        diff.ignored.push(name.to_owned());
    } else {
        diff.fields.push(FieldDiff {
            column: name.to_owned(),
            kind,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::fixture::{ID, schema};

    fn diff(authority: Value, secondary: Value) -> RowDiff {
        let schema = schema();
        let table = schema.table("campaigns").unwrap();
        row_diff(
            table,
            authority.as_object().unwrap(),
            secondary.as_object().unwrap(),
        )
    }

    fn fields(authority: Value, secondary: Value) -> Vec<(String, FieldKind)> {
        let diff = diff(authority, secondary).fields;
        diff.into_iter()
            .map(|field| (field.column, field.kind))
            .collect()
    }

    #[test]
    fn equal_rows_differ_in_nothing_whatever_the_order_of_their_columns() {
        let diff = diff(
            json!({"id": ID, "budget": 1.50, "name": "a"}),
            json!({"name": "a", "budget": 1.5, "id": ID.to_uppercase()}),
        );
        assert!(diff.is_equal() && diff.ignored.is_empty());
    }

    #[test]
    fn missing_null_and_extra_are_told_apart() {
        assert_eq!(
            fields(json!({"name": null}), json!({})),
            [("name".to_owned(), FieldKind::Missing)]
        );
        assert_eq!(
            fields(json!({"name": null}), json!({"name": ""})),
            [("name".to_owned(), FieldKind::Value)]
        );
        assert_eq!(
            fields(json!({}), json!({"name": null, "_id": 1})),
            [
                ("name".to_owned(), FieldKind::Extra),
                ("_id".to_owned(), FieldKind::Extra)
            ]
        );
    }

    #[test]
    fn an_ignored_column_is_named_when_it_differs_and_only_then() {
        let differs = diff(
            json!({"note": "a", "name": "x"}),
            json!({"note": "b", "name": "x"}),
        );
        assert!(differs.is_equal());
        assert_eq!(differs.ignored, ["note"]);
        assert!(
            diff(json!({"note": "a"}), json!({"note": "a"}))
                .ignored
                .is_empty()
        );
    }
}
