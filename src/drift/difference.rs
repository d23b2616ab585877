//! What differs between a table of legacy and what storage shows of it. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Serialize, Serializer};

use super::described::told;
use crate::contract::Row;
use crate::schema::Table;
use crate::sql::{Dialect, describe};
use crate::storage::Look;
use crate::telemetry::DriftKind;

/// One difference of the two schemas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// What kind.
    #[serde(serialize_with = "kind_name")]
    pub kind: DriftKind,
    /// The column, or those of a key; none when the table is missing.
    pub column: Option<String>,
    /// What two descriptions say of it.
    #[serde(skip)]
    pub what: Option<String>,
}

/// Holds what was seen against the table of legacy, whose dialect that is. NULL says nothing about a column's type,
/// and neither does an empty table.
#[must_use]
pub fn differences(table: &Table, dialect: Dialect, look: &Look) -> Vec<Difference> {
    let of = |kind, column: Option<&str>| Difference {
        table: table.name.clone(),
        kind,
        column: column.map(str::to_owned),
        what: None,
    };
    let (lacks, row, description) = match look {
        Look::NoTable => return vec![of(DriftKind::MissingTable, None)],
        Look::Table {
            lacks,
            row,
            description,
        } => (lacks, row.as_ref(), description.as_ref()),
    };
    let mut found = Vec::new();
    for column in &table.columns {
        let name = column.name.as_str();
        // A service that ignores `columns` refuses none: then its row tells.
        let absent = |row: &Row| !row.contains_key(name);
        if lacks.iter().any(|lacking| lacking == name) || row.is_some_and(absent) {
            found.push(of(DriftKind::MissingColumn, Some(name)));
            continue;
        }
        let value = row
            .and_then(|row| row.get(name))
            .filter(|value| !value.is_null());
        if value.is_some_and(|value| column.kind.canonical(value).is_none()) {
            found.push(of(DriftKind::Type, Some(name)));
        }
    }
    let beside: BTreeSet<&String> = match description {
        Some(described) => described.columns.iter().map(|one| &one.name).collect(),
        None => row.into_iter().flat_map(Row::keys).collect(),
    };
    let beside = beside
        .into_iter()
        .filter(|name| table.column(name).is_none());
    found.extend(beside.map(|name| of(DriftKind::ExtraColumn, Some(name))));
    let told = description.map(|described| told(&describe(dialect, table), described));
    let told = told.into_iter().flatten();
    let told = told.filter(|(kind, column, _)| !is_accepted(table, *kind, column));
    found.extend(told.map(|(kind, column, what)| Difference {
        what: Some(what),
        ..of(kind, Some(&column))
    }));
    found
}

/// A column that nobody compares, or that storage may fill in, may be computed on one side.
fn is_accepted(table: &Table, kind: DriftKind, column: &str) -> bool {
    let policy = &table.policy;
    let mut free = policy.ignore.iter().chain(&policy.filled_by_storage);
    let of_it = table.column(column);
    kind == DriftKind::Generated && of_it.is_some_and(|of_it| free.any(|index| *index == of_it))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(what) = &self.what {
            return f.write_str(what);
        }
        let column = self.column.as_deref().unwrap_or_default();
        match self.kind {
            DriftKind::MissingTable => f.write_str("storage lacks the table"),
            DriftKind::MissingColumn => write!(f, "storage lacks column {column}"),
            DriftKind::ExtraColumn => write!(f, "only storage has column {column}"),
            DriftKind::Type => write!(f, "storage has values of another type in column {column}"),
            DriftKind::NotNull
            | DriftKind::Generated
            | DriftKind::PrimaryKey
            | DriftKind::Unique
            | DriftKind::ForeignKey
            | DriftKind::Looser => f.write_str(column),
        }
    }
}

fn kind_name<S: Serializer>(kind: &DriftKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::{Description, GeneratedBy};
    use crate::schema::fixture::pairs_table;

    fn kinds(lacks: &[&str], row: Option<Value>) -> Vec<(DriftKind, String)> {
        let row = row.map(|row| row.as_object().unwrap().clone());
        let lacks = lacks.iter().map(|name| (*name).to_owned()).collect();
        let look = Look::Table {
            lacks,
            row,
            description: None,
        };
        let found = differences(&pairs_table(), Dialect::Postgres, &look);
        let named = found.into_iter();
        named
            .map(|one| (one.kind, one.column.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn equal_tables_differ_in_nothing_whether_they_have_rows_or_not() {
        let row = json!({"a": 1, "b": "x", "amount": null});
        assert_eq!(kinds(&[], Some(row)), []);
        assert_eq!(kinds(&[], None), []);
    }

    #[test]
    fn a_missing_column_is_told_by_the_refusal_or_by_the_row() {
        let missing = [(DriftKind::MissingColumn, "amount".to_owned())];
        assert_eq!(kinds(&["amount"], None), missing);
        assert_eq!(kinds(&[], Some(json!({"a": 1, "b": "x"}))), missing);
    }

    #[test]
    fn what_only_storage_has_and_what_legacy_cannot_read_is_named() {
        let row = json!({"a": "one", "b": "x", "amount": null, "c": null});
        assert_eq!(
            kinds(&[], Some(row)),
            [
                (DriftKind::Type, "a".to_owned()),
                (DriftKind::ExtraColumn, "c".to_owned())
            ]
        );
    }

    #[test]
    fn a_table_that_storage_does_not_know_is_one_difference() {
        let found = differences(&pairs_table(), Dialect::Postgres, &Look::NoTable);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "storage lacks the table");
    }

    #[test]
    fn what_a_service_says_of_a_table_is_held_against_legacys_catalog() {
        let mut table = pairs_table();
        let mut described = describe(Dialect::Postgres, &table);
        let kinds = |table: &Table, described: &Description| {
            let look = Look::Table {
                lacks: Vec::new(),
                row: None,
                description: Some(described.clone()),
            };
            let found = differences(table, Dialect::Postgres, &look);
            let kinds: Vec<DriftKind> = found.iter().map(|one| one.kind).collect();
            kinds
        };
        assert_eq!(kinds(&table, &described), []);
        let amount = table.column("amount").unwrap();
        described.columns[amount].nullable = false;
        let mut extra = described.columns[amount].clone();
        extra.name = "c".to_owned();
        described.columns.push(extra);
        assert_eq!(
            kinds(&table, &described),
            [DriftKind::ExtraColumn, DriftKind::NotNull]
        );
        described.columns[amount].generated = Some(GeneratedBy::Expression);
        assert!(kinds(&table, &described).contains(&DriftKind::Generated));
        table.policy.filled_by_storage = vec![amount];
        assert!(!kinds(&table, &described).contains(&DriftKind::Generated));
    }
}
