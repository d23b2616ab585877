//! The shape of a database, as the database itself tells it.
//!
//! Columns, types, keys and relations are read from the catalog, never from the config: the config can
//! only name tables and say what to make of their columns, so the two cannot disagree unnoticed.

mod order;
mod postgres;
mod sqlite;

use std::sync::Arc;

use super::{Db, Fault};
use crate::schema::{Column, Kind, Policy, Reference, Schema, Table};

/// A table that the config names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableSpec {
    /// The table's name, or `schema.table` on PostgreSQL; also its name in the contract.
    pub name: String,
    /// The column that a soft delete sets.
    pub soft_delete: Option<String>,
    /// The version column.
    pub version: Option<String>,
    /// Columns that are not compared.
    pub ignore: Vec<String>,
    /// Columns that storage may fill in by itself.
    pub filled_by_storage: Vec<String>,
    /// Columns of JSON whose `null` document counts as SQL NULL.
    pub null_documents: Vec<String>,
    /// Whether divergence samples may hold values.
    pub show_values: bool,
    /// Whether divergence samples hold hashes instead of keys.
    pub hash_keys: bool,
}

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    /// A configured table is not there.
    #[error("table {0} does not exist")]
    TableMissing(String),
    /// A table has no primary key: its rows cannot be told apart.
    #[error("table {0} has no primary key")]
    NoPrimaryKey(String),
    /// The config names a column that is not there.
    #[error("table {table} has no column {column}")]
    ColumnMissing {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// What `null_documents` names must be able to hold SQL NULL instead.
    #[error(
        "table {table}: null_documents names {column}, which is no nullable json or jsonb column"
    )]
    NoNullDocument {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Its rows are written by statements on another table as well, which its triggers do not see.
    #[error(
        "table {0} is a partition, or inherits, or is inherited from: rows are written through the other table unseen; name the partitioned table instead"
    )]
    Inherits(String),
    /// A row cannot be put by its key: `ON CONFLICT` takes no key that is checked later.
    #[error("table {0}: its primary key is deferrable, and PostgreSQL puts no row by such a key")]
    DeferrableKey(String),
    /// Values of a key column can be equal and yet read differently: journal, payments and verify tell rows apart by
    /// how their keys are spelled.
    #[error(
        "table {table}: values of key column {column} ({sql_type}) can be equal and spelled differently (interval, citext, jsonb, ranges, arrays, a nondeterministic collation), or are computed: such a key is not supported"
    )]
    KeySpelling {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type, as declared.
        sql_type: String,
    },
    /// A key column's type has no canonical text in this database (BLOB on SQLite).
    #[error("table {table}: a key column of type {sql_type} is not supported here")]
    KeyUnsupported {
        /// The table.
        table: String,
        /// The type, as declared.
        sql_type: String,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What a dialect reads of one table.
struct Found {
    /// In the contract.
    name: String,
    sql_name: String,
    columns: Vec<Column>,
    key: Vec<usize>,
    unique: Vec<Vec<usize>>,
    references: Vec<Reference>,
}

/// Reads the wanted tables, in dependency order; every table of the application when none is
/// named (on PostgreSQL, those of the search path).
///
/// # Errors
/// See [`IntrospectError`].
pub async fn introspect(db: &Db, wanted: &[TableSpec]) -> Result<Schema, IntrospectError> {
    let names: Vec<_> = wanted.iter().map(|spec| spec.name.clone()).collect();
    let found = match db {
        Db::Postgres(_) => postgres::tables(db, &names).await?,
        Db::Sqlite(_) => sqlite::tables(db, &names).await?,
    };
    let mut tables = Vec::with_capacity(found.len());
    for found in found {
        let spec = wanted.iter().find(|spec| spec.name == found.name);
        let policy = spec.map(|spec| policy(spec, &found)).transpose()?;
        if found.key.is_empty() {
            return Err(IntrospectError::NoPrimaryKey(found.name));
        }
        tables.push(Table {
            name: found.name,
            sql_name: found.sql_name,
            columns: found.columns,
            key: found.key,
            unique: found.unique,
            references: found.references,
            policy: policy.unwrap_or_default(),
            row_sql: Default::default(),
        });
    }
    let tables = order::by_dependency(tables);
    Ok(Schema {
        tables: tables
            .into_iter()
            .map(|table| (table.name.clone(), Arc::new(table)))
            .collect(),
    })
}

fn policy(spec: &TableSpec, found: &Found) -> Result<Policy, IntrospectError> {
    let index = |name: &String| {
        let position = found.columns.iter().position(|column| column.name == *name);
        position.ok_or_else(|| IntrospectError::ColumnMissing {
            table: found.name.clone(),
            column: name.clone(),
        })
    };
    let indexes = |names: &[String]| names.iter().map(index).collect::<Result<Vec<_>, _>>();
    let null_documents = indexes(&spec.null_documents)?;
    for column in null_documents.iter().map(|&index| &found.columns[index]) {
        if !column.nullable || !matches!(column.kind, Kind::Json(_)) {
            return Err(IntrospectError::NoNullDocument {
                table: found.name.clone(),
                column: column.name.clone(),
            });
        }
    }
    Ok(Policy {
        soft_delete: spec.soft_delete.as_ref().map(index).transpose()?,
        version: spec.version.as_ref().map(index).transpose()?,
        ignore: indexes(&spec.ignore)?,
        filled_by_storage: indexes(&spec.filled_by_storage)?,
        null_documents,
        show_values: spec.show_values,
        hash_keys: spec.hash_keys,
    })
}
