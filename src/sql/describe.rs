//! A table in the words of the contract, from what was read of the catalog: what `describe` answers, and what legacy
//! is held against.

use super::Dialect;
use crate::contract::{DescribedColumn, Description, ForeignKey, GeneratedBy, Holds, OnDelete};
use crate::schema::{Column, Generated, Kind, OnChange, Reference, Table};

/// Describes a table as its database enforces it.
#[must_use]
pub fn describe(dialect: Dialect, table: &Table) -> Description {
    let names = |indexes: &[usize]| -> Vec<String> {
        let columns = indexes.iter().filter_map(|index| table.columns.get(*index));
        columns.map(|column| column.name.clone()).collect()
    };
    let foreign_key = |reference: &Reference| ForeignKey {
        columns: names(&reference.columns),
        table: reference.table.clone(),
        target: reference.target.clone(),
        on_delete: match reference.on_delete {
            OnChange::Refuse => OnDelete::Refuse,
            OnChange::Cascade => OnDelete::Cascade,
            OnChange::SetNull => OnDelete::SetNull,
            OnChange::SetDefault => OnDelete::SetDefault,
        },
    };
    Description {
        columns: table
            .columns
            .iter()
            .map(|one| column(dialect, one))
            .collect(),
        primary_key: names(&table.key),
        unique: table.unique.iter().map(|key| names(key)).collect(),
        foreign_keys: table.references.iter().map(foreign_key).collect(),
    }
}

fn column(dialect: Dialect, column: &Column) -> DescribedColumn {
    DescribedColumn {
        name: column.name.clone(),
        sql_type: column.sql_type.clone(),
        holds: Some(match (dialect, holds(&column.kind)) {
            (Dialect::Sqlite, Holds::Numeric) if rounds(&column.sql_type) => Holds::Float64,
            (_, holds) => holds,
        }),
        // SQLite reads the numbers of a type and enforces none.
        limits: match dialect {
            Dialect::Postgres => limits(&column.sql_type),
            Dialect::Sqlite => Vec::new(),
        },
        nullable: column.nullable,
        generated: match column.generated {
            Generated::No => None,
            Generated::Expression => Some(GeneratedBy::Expression),
            Generated::IdentityAlways | Generated::IdentityByDefault => Some(GeneratedBy::Identity),
        },
    }
}

fn holds(kind: &Kind) -> Holds {
    match kind {
        Kind::Bool => Holds::Boolean,
        Kind::Int(16) => Holds::Int16,
        Kind::Int(32) => Holds::Int32,
        Kind::Int(_) => Holds::Int64,
        Kind::Numeric => Holds::Numeric,
        Kind::Float(32) => Holds::Float32,
        Kind::Float(_) => Holds::Float64,
        Kind::Text => Holds::Text,
        Kind::Uuid => Holds::Uuid,
        Kind::Timestamptz => Holds::Timestamptz,
        Kind::Timestamp => Holds::Timestamp,
        Kind::Date => Holds::Date,
        Kind::Time => Holds::Time,
        Kind::Interval => Holds::Interval,
        Kind::Bytes => Holds::Bytes,
        Kind::Json(_) => Holds::Json,
        Kind::Enum(labels) => Holds::Enum(labels.clone()),
        Kind::Array(element) => Holds::Array(Box::new(holds(element))),
        Kind::Other => Holds::Other,
    }
}

/// The numbers in the parentheses of a type. A name in quotes is of a type that somebody made, and has none.
fn limits(sql_type: &str) -> Vec<i64> {
    let within = sql_type
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    match within {
        Some((numbers, _)) if !sql_type.contains('"') => numbers
            .split(',')
            .filter_map(|number| number.trim().parse().ok())
            .collect(),
        Some(_) | None => Vec::new(),
    }
}

/// Whether SQLite keeps numerics of a declared type as floats, which is all but those with the affinity of text
/// (<https://www.sqlite.org/datatype3.html>, 3.1).
fn rounds(declared: &str) -> bool {
    let declared = declared.to_ascii_uppercase();
    let is_text = ["CHAR", "CLOB", "TEXT"]
        .iter()
        .any(|word| declared.contains(word));
    !is_text || declared.contains("INT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::fixture::pairs_table;

    #[test]
    fn the_numbers_of_a_type_are_its_limits() {
        assert_eq!(limits("numeric(12,4)"), [12, 4]);
        assert_eq!(limits("character varying(60)[]"), [60]);
        assert_eq!(limits("timestamp(3) without time zone"), [3]);
        assert_eq!(limits("public.mood"), [0; 0]);
        assert_eq!(limits("public.\"odd (9)\""), [0; 0]);
    }

    #[test]
    fn sqlite_enforces_no_limits_and_rounds_numerics_that_are_not_text() {
        let mut table = pairs_table();
        let amount = table.column("amount").unwrap();
        table.columns[amount].kind = Kind::Numeric;
        for (declared, holds) in [
            ("numeric(12,4)", Holds::Float64),
            ("NUMERIC TEXT", Holds::Numeric),
        ] {
            table.columns[amount].sql_type = declared.to_owned();
            let described = describe(Dialect::Sqlite, &table);
            assert_eq!(described.columns[amount].holds, Some(holds));
            assert_eq!(described.columns[amount].limits, [0; 0]);
        }
        table.columns[amount].sql_type = "numeric(12,4)".to_owned();
        let described = describe(Dialect::Postgres, &table);
        assert_eq!(described.columns[amount].holds, Some(Holds::Numeric));
        assert_eq!(described.columns[amount].limits, [12, 4]);
    }
}
