//! Tables, columns, keys and relations.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;

use super::{Generated, Kind};

/// Every configured table, in dependency order (referenced before referencing, cycles in name order).
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// By name, as the contract spells it.
    pub tables: IndexMap<String, Arc<Table>>,
}

/// One configured table.
#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    /// As the contract spells it.
    pub name: String,
    /// Quoted and schema-qualified, ready for SQL.
    pub sql_name: String,
    /// In the database's order.
    pub columns: Vec<Column>,
    /// Indexes into `columns`, in key order; never empty.
    pub key: Vec<usize>,
    /// Other unique constraints and indexes, as column indexes.
    pub unique: Vec<Vec<usize>>,
    /// Foreign keys of this table.
    pub references: Vec<Reference>,
    /// What the config says about it.
    pub policy: Policy,
    /// The SQL of a whole row, by dialect.
    pub row_sql: [Memo; 2],
}

/// A text that follows from the rest of a table and is wanted with every statement: made once, when it is first
/// needed. Whether it was made yet makes no table another, and a copy, which may be changed, begins without it.
#[derive(Debug, Default)]
pub struct Memo(OnceLock<String>);

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// The type as SQL spells it, ready for a cast (`numeric(40,2)`, `public.mood`).
    pub sql_type: String,
    /// What its values are read and compared as: `sql_type`, or what a domain rests on (`character(6)`).
    pub base_type: String,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Whether the database fills it in when it is not given (a default, identity or expression).
    pub has_default: bool,
    /// Who gives the value.
    pub generated: Generated,
    /// The sequence behind it, schema-qualified and quoted for `nextval`, if any.
    pub sequence: Option<String>,
}

/// A foreign key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Column indexes here.
    pub columns: Vec<usize>,
    /// The table it points to, by contract name; it may not be configured.
    pub table: String,
    /// Column names there.
    pub target: Vec<String>,
    /// ON DELETE.
    pub on_delete: OnChange,
    /// ON UPDATE.
    pub on_update: OnChange,
    /// Those of `columns` that ON DELETE SET NULL or SET DEFAULT sets.
    pub clears: Vec<usize>,
}

/// What a foreign key does to its rows when the row they point to goes or changes its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnChange {
    /// NO ACTION or RESTRICT: the change is refused.
    Refuse,
    /// CASCADE.
    Cascade,
    /// SET NULL.
    SetNull,
    /// SET DEFAULT.
    SetDefault,
}

/// What the config says about a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// The soft-delete column (index), set to the time of deletion.
    pub soft_delete: Option<usize>,
    /// The version column (index).
    pub version: Option<usize>,
    /// Columns that are not compared.
    pub ignore: Vec<usize>,
    /// Columns that storage may fill in by itself.
    pub filled_by_storage: Vec<usize>,
    /// Columns of JSON whose `null` document counts as SQL NULL, which is how the contract spells both.
    pub null_documents: Vec<usize>,
    /// Whether divergence samples may hold values.
    pub show_values: bool,
    /// Whether divergence samples hold hashes instead of keys.
    pub hash_keys: bool,
}

impl Memo {
    /// The text.
    pub fn get_or_make(&self, make: impl FnOnce() -> String) -> &str {
        self.0.get_or_init(make)
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Schema {
    /// The table of that name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }
}

impl Table {
    /// The index of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The index of every column.
    #[must_use]
    pub fn every_column(&self) -> Vec<usize> {
        (0..self.columns.len()).collect()
    }

    /// Integer columns with a sequence that lead the primary key or a unique one: an index gives their greatest
    /// value at once. Each with its sequence.
    pub fn counted(&self) -> impl Iterator<Item = (&Column, &str)> {
        let leading = [&self.key].into_iter().chain(&self.unique);
        let leading: BTreeSet<usize> = leading.filter_map(|key| key.first().copied()).collect();
        leading.into_iter().filter_map(|index| {
            let column = self.columns.get(index)?;
            match (&column.kind, &column.sequence) {
                (Kind::Int(_), Some(sequence)) => Some((column, sequence.as_str())),
                _ => None,
            }
        })
    }

    /// The key's columns, in key order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&index| &self.columns[index])
    }
}
