//! What hangs on a row: the rows that go, or change, when it is removed.
//!
//! Read from legacy's foreign keys and rows, because a removal elsewhere does not say what it took along.

use std::collections::HashSet;
use std::sync::Arc;

use super::Legacy;
use crate::contract::{Key, Operator, Row};
use crate::schema::{Filter, OnChange, Reference, Table, Test};
use crate::sql::Fault;

/// A row that the removal of others takes along.
#[derive(Clone, Debug)]
pub struct Swept {
    /// Its table.
    pub table: Arc<Table>,
    /// Its key.
    pub key: Key,
    /// What happens to it; never `Refuse`.
    pub by: OnChange,
}

impl Legacy {
    /// The rows beside `removed` that their removal would remove or change, those nearest first. `None`:
    /// they are more than `rows_max`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn swept_along(
        &self,
        removed: &[(Arc<Table>, Key)],
        rows_max: usize,
    ) -> Result<Option<Vec<Swept>>, Fault> {
        let mut seen: HashSet<(String, Key)> = removed
            .iter()
            .map(|(table, key)| (table.name.clone(), key.clone()))
            .collect();
        let mut swept: Vec<Swept> = Vec::new();
        let mut going = removed.to_vec();
        while !going.is_empty() {
            let found = self.hanging_on(&going, rows_max).await?;
            going.clear();
            for one in found {
                if !seen.insert((one.table.name.clone(), one.key.clone())) {
                    continue;
                }
                if one.by == OnChange::Cascade {
                    going.push((Arc::clone(&one.table), one.key.clone()));
                }
                swept.push(one);
                if swept.len() > rows_max {
                    return Ok(None);
                }
            }
        }
        Ok(Some(swept))
    }

    /// One level: the rows that reference these with an action on delete.
    async fn hanging_on(
        &self,
        rows: &[(Arc<Table>, Key)],
        rows_max: usize,
    ) -> Result<Vec<Swept>, Fault> {
        let schema = self.schema();
        let mut found = Vec::new();
        for parent in schema.tables.values() {
            let keys: Vec<Key> = rows
                .iter()
                .filter(|(table, _)| table.name == parent.name)
                .map(|(_, key)| key.clone())
                .collect();
            if keys.is_empty() {
                continue;
            }
            let parents: Vec<Row> = self.rows(parent, &keys).await?.into_values().collect();
            for child in schema.tables.values() {
                for reference in acting_on(child, parent) {
                    let filter = referencing(reference, &parents);
                    let limit = rows_max as u64 + 1;
                    let keys = self.keys_matching(child, &filter, limit).await?;
                    found.extend(keys.into_iter().map(|key| Swept {
                        table: Arc::clone(child),
                        key,
                        by: reference.on_delete,
                    }));
                }
            }
        }
        Ok(found)
    }
}

/// The foreign keys of `child` that do something to its rows when a row of `parent` goes.
fn acting_on<'a>(child: &'a Table, parent: &Table) -> impl Iterator<Item = &'a Reference> {
    let name = parent.name.clone();
    child
        .references
        .iter()
        .filter(move |reference| reference.table == name && reference.on_delete != OnChange::Refuse)
}

/// The rows that point to one of these, by the columns that the foreign key names.
fn referencing(reference: &Reference, parents: &[Row]) -> Filter {
    let pointed_to = |row: &Row| {
        let tests = reference.columns.iter().zip(&reference.target);
        tests
            .map(|(&column, target)| {
                let value = row.get(target).filter(|value| !value.is_null())?.clone();
                let operator = Operator::Eq;
                Some(Filter::Test(Test {
                    column,
                    operator,
                    value,
                }))
            })
            .collect::<Option<Vec<_>>>()
            .map(Filter::All)
    };
    Filter::Any(parents.iter().filter_map(pointed_to).collect())
}
