//! How two rows of one table differ.

use std::cmp::Ordering;

use serde_json::Value;

use super::value::order;
use super::{DifferenceKind, FieldDiff, FieldKind, values_equal};
use crate::contract::Row;
use crate::schema::Table;

/// The differences of two rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RowDiff {
    /// Fields that differ and count.
    pub fields: Vec<FieldDiff>,
    /// Columns that differ and do not count, by the table's policy.
    pub ignored: Vec<String>,
    /// The gravest kind among the fields that count; none when none differs.
    pub kind: Option<DifferenceKind>,
}

impl RowDiff {
    /// Whether nothing that counts differs.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.fields.is_empty()
    }

    fn add_field(&mut self, table: &Table, index: Option<usize>, name: &str, kind: FieldKind) {
        self.add(table, index, name, kind, DifferenceKind::Field);
    }

    fn add(
        &mut self,
        table: &Table,
        index: Option<usize>,
        name: &str,
        kind: FieldKind,
        says: DifferenceKind,
    ) {
        if index.is_some_and(|index| table.policy.ignore.contains(&index)) {
            self.ignored.push(name.to_owned());
            return;
        }
        self.kind = Some(self.kind.map_or(says, |gravest| gravest.min(says)));
        self.fields.push(FieldDiff {
            column: name.to_owned(),
            kind,
        });
    }
}

/// Compares the secondary's row with the authority's: the table's columns that either of them has. NULL and
/// missing are different. Members that are no columns do not count: which columns a side has is a question of
/// drift, and is asked there once and not with every row.
#[must_use]
pub fn row_diff(table: &Table, authority: &Row, secondary: &Row) -> RowDiff {
    let mut diff = RowDiff::default();
    // Nearly always, and found out without looking a column up.
    if spelled_alike(authority, secondary) {
        return diff;
    }
    for (index, column) in table.columns.iter().enumerate() {
        let (name, index) = (&column.name, Some(index));
        match (authority.get(name), secondary.get(name)) {
            (None, None) => {}
            (Some(mine), Some(other)) if values_equal(&column.kind, mine, other) => {}
            (Some(mine), Some(other)) => {
                let says = said_by(table, index, mine, other);
                diff.add(table, index, name, FieldKind::Value, says);
            }
            (Some(_), None) => diff.add_field(table, index, name, FieldKind::Missing),
            (None, Some(_)) => diff.add_field(table, index, name, FieldKind::Extra),
        }
    }
    diff
}

/// Whether two rows have the same members, alike and in the same order.
fn spelled_alike(a: &Row, b: &Row) -> bool {
    a.len() == b.len() && a.iter().eq(b)
}

/// What a field that differs says of its row.
fn said_by(
    table: &Table,
    index: Option<usize>,
    authority: &Value,
    secondary: &Value,
) -> DifferenceKind {
    if index.is_some() && index == table.policy.soft_delete {
        return match authority.is_null() == secondary.is_null() {
            true => DifferenceKind::Field,
            false => DifferenceKind::SoftDelete,
        };
    }
    let Some(version) = index.filter(|_| index == table.policy.version) else {
        return DifferenceKind::Field;
    };
    match order(&table.columns[version].kind, authority, secondary) {
        Some(Ordering::Greater) => DifferenceKind::Version,
        Some(Ordering::Less) => DifferenceKind::VersionAhead,
        Some(Ordering::Equal) | None => DifferenceKind::Field,
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

    #[test]
    fn a_row_is_named_by_the_gravest_of_what_its_fields_say() {
        let mut table = (**schema().table("campaigns").unwrap()).clone();
        table.policy.version = table.column("budget");
        let deleted_at = table.policy.soft_delete.unwrap();
        let deleted_at = table.columns[deleted_at].name.clone();
        let row = |name: &str, version: i64, deleted: Value| {
            let row = json!({"name": name, "budget": version, deleted_at.as_str(): deleted});
            row.as_object().unwrap().clone()
        };
        let kind = |a: &Row, b: &Row| row_diff(&table, a, b).kind;
        let (gone, later) = (
            json!("2026-01-01T00:00:00.000000Z"),
            json!("2026-01-02T00:00:00.000000Z"),
        );
        let authority = row("a", 2, Value::Null);
        assert_eq!(kind(&authority, &authority), None);
        for (secondary, named) in [
            (row("b", 2, Value::Null), DifferenceKind::Field),
            (row("b", 1, Value::Null), DifferenceKind::Version),
            (row("b", 3, Value::Null), DifferenceKind::VersionAhead),
            (row("b", 1, gone.clone()), DifferenceKind::SoftDelete),
        ] {
            assert_eq!(kind(&authority, &secondary), Some(named));
        }
        assert_eq!(
            kind(&row("a", 2, gone), &row("a", 2, later)),
            Some(DifferenceKind::Field),
            "both are deleted, at different times"
        );
    }
}
