//! How two rows of one table differ.

use super::{FieldDiff, FieldKind, values_equal};
use crate::contract::Row;
use crate::schema::Table;

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

/// Compares the secondary's row with the authority's: the table's columns that either of them has. NULL and
/// missing are different. Members that are no columns do not count: which columns a side has is a question of
/// drift, and is asked there once and not with every row.
#[must_use]
pub fn row_diff(table: &Table, authority: &Row, secondary: &Row) -> RowDiff {
    let mut diff = RowDiff::default();
    for (index, column) in table.columns.iter().enumerate() {
        let values = (authority.get(&column.name), secondary.get(&column.name));
        let kind = match values {
            (None, None) => continue,
            (Some(mine), Some(other)) if values_equal(&column.kind, mine, other) => continue,
            (Some(_), Some(_)) => FieldKind::Value,
            (Some(_), None) => FieldKind::Missing,
            (None, Some(_)) => FieldKind::Extra,
        };
        let column = column.name.clone();
        if table.policy.ignore.contains(&index) {
            diff.ignored.push(column);
        } else {
            diff.fields.push(FieldDiff { column, kind });
        }
    }
    diff
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
            fields(json!({}), json!({"name": null})),
            [("name".to_owned(), FieldKind::Extra)]
        );
    }

    #[test]
    fn what_is_no_column_of_the_table_does_not_count() {
        assert_eq!(fields(json!({"gone": 1}), json!({"_id": 1})), []);
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
