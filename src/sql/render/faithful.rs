//! Which values of a row JSON, as the contract spells rows, cannot carry to another database unchanged.
//!
//! A `json` document that is JSON's own `null` reads like SQL NULL, and PostgreSQL's arrays know more than
//! JSON's: where their subscripts begin, and whether an array inside is an element or a dimension. Such a row
//! must not be copied as if nothing were lost, unless the table's config says that nothing is
//! (`null_documents`).

use super::{column, literal};
use crate::schema::{Kind, Table};
use crate::sql::Dialect;

/// An expression for the names of a row's columns that would not arrive as they are, separated by commas:
/// empty text when all would.
pub(super) fn unfaithful_expr(dialect: Dialect, table: &Table, qualifier: &str) -> String {
    let tests: Vec<String> = (0..table.columns.len())
        .filter(|index| !table.policy.null_documents.contains(index))
        .filter_map(|index| {
            let value = column(table, index, qualifier);
            let test = match dialect {
                Dialect::Postgres => postgres_test(&table.columns[index].kind, &value)?,
                Dialect::Sqlite => sqlite_test(&table.columns[index].kind, &value)?,
            };
            let name = literal(&table.columns[index].name);
            Some(format!("CASE WHEN {test} THEN {name} END"))
        })
        .collect();
    match (dialect, tests.is_empty()) {
        (_, true) => "''".to_owned(),
        // Not concat_ws: a function takes 100 arguments, and a table has up to 1,600 columns.
        (Dialect::Postgres, false) => format!("array_to_string(ARRAY[{}], ',')", tests.join(", ")),
        // SQLite has no concat_ws before 3.44; one name more or less does not matter there.
        (Dialect::Sqlite, false) => format!(
            "coalesce({}, '')",
            [tests, vec!["''".to_owned()]].concat().join(", ")
        ),
    }
}

fn postgres_test(kind: &Kind, value: &str) -> Option<String> {
    match kind {
        Kind::Json(true) => Some(format!("jsonb_typeof({value}) = 'null'")),
        Kind::Json(false) => Some(format!("json_typeof({value}) = 'null'")),
        Kind::Array(element) => Some(array_test(element, value)),
        Kind::Bool
        | Kind::Int(_)
        | Kind::Numeric
        | Kind::Float(_)
        | Kind::Text
        | Kind::Uuid
        | Kind::Timestamptz
        | Kind::Timestamp
        | Kind::Date
        | Kind::Time
        | Kind::Interval
        | Kind::Bytes
        | Kind::Enum(_)
        | Kind::Other => None,
    }
}

/// Subscripts that do not begin at 1 are never carried; nor are elements of JSON that would be taken for a further
/// dimension, or for SQL NULL.
fn array_test(element: &Kind, value: &str) -> String {
    let shifted = format!(r"array_dims({value}) ~ '\[(?!1:)'");
    match element {
        Kind::Json(_) => format!(
            "({shifted} OR EXISTS (SELECT FROM unnest({value}) AS cutover_array (item) \
             WHERE jsonb_typeof(item::jsonb) IN ('array', 'null')))"
        ),
        Kind::Timestamptz
        | Kind::Timestamp
        | Kind::Bytes
        | Kind::Other
        | Kind::Bool
        | Kind::Int(_)
        | Kind::Numeric
        | Kind::Float(_)
        | Kind::Text
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::Interval
        | Kind::Enum(_)
        | Kind::Array(_) => shifted,
    }
}

fn sqlite_test(kind: &Kind, value: &str) -> Option<String> {
    match kind {
        Kind::Json(_) => Some(format!(
            "CASE WHEN json_valid({value}) THEN json_type({value}) = 'null' END"
        )),
        Kind::Array(_)
        | Kind::Bool
        | Kind::Int(_)
        | Kind::Numeric
        | Kind::Float(_)
        | Kind::Text
        | Kind::Uuid
        | Kind::Timestamptz
        | Kind::Timestamp
        | Kind::Date
        | Kind::Time
        | Kind::Interval
        | Kind::Bytes
        | Kind::Enum(_)
        | Kind::Other => None,
    }
}
