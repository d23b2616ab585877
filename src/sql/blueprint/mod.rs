//! The DDL that makes storage's tables out of legacy's: types, tables, keys, indexes, relations, in the
//! order in which they can be run.
//!
//! The catalog's own words are used wherever it has them (`pg_get_constraintdef`, `sqlite_schema.sql`): a
//! renderer of ours would have to know every clause that a database accepts. A relation that closes a circle
//! of tables, one table with itself included, is printed for later: while rows are copied one by one, each
//! as it is at that moment, no order of copying satisfies a circle; legacy keeps it meanwhile, and `verify`
//! looks for orphans on both sides.

mod postgres;
mod sqlite;
mod used_types;

use std::fmt;

use super::{Db, Fault};
use crate::schema::{Schema, Table};

/// What to run on storage's database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Blueprint {
    /// To be run now, in this order; none ends with a semicolon.
    pub statements: Vec<String>,
    /// To be run once storage is the authority: relations that close a circle.
    pub later: Vec<String>,
    /// What storage cannot have, for people.
    pub left_out: Vec<String>,
}

/// Reads what it takes to make the tables of `schema` again.
///
/// # Errors
/// See [`Fault`].
pub async fn blueprint(db: &Db, schema: &Schema) -> Result<Blueprint, Fault> {
    match db {
        Db::Postgres(_) => postgres::blueprint(db, schema).await,
        Db::Sqlite(_) => sqlite::blueprint(db, schema).await,
    }
}

/// Whether a relation from one table to another closes a circle: in dependency order, only such ones point
/// at their own table or at one that comes later.
fn closes_a_circle(schema: &Schema, from: &Table, to: &Table) -> bool {
    schema.tables.get_index_of(&from.name) <= schema.tables.get_index_of(&to.name)
}

impl fmt::Display for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-- Storage's tables, made from legacy's.")?;
        for statement in &self.statements {
            writeln!(f, "{statement};")?;
        }
        if !self.left_out.is_empty() {
            writeln!(f, "\n-- Left out:")?;
        }
        for line in &self.left_out {
            writeln!(f, "--   {}", line.replace('\n', " "))?;
        }
        if !self.later.is_empty() {
            writeln!(
                f,
                "\n-- These relations close a circle: rows that are copied one by one could not keep them.\n\
                 -- Run them in `live`, once nothing is owed and a verify was clean:"
            )?;
        }
        for statement in &self.later {
            writeln!(f, "-- {};", statement.replace('\n', "\n-- "))?;
        }
        Ok(())
    }
}
