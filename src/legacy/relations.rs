//! What hangs on a row: the rows that go, or change, when it is removed.
//!
//! Read from legacy's foreign keys and rows, because a removal elsewhere does not say what it took along.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Legacy;
use crate::contract::{Key, Operator, Row};
use crate::schema::{Filter, OnChange, Reference, Schema, Table, Test};
use crate::sql::Fault;

/// What the removal of rows takes along.
#[derive(Clone, Default, Debug)]
pub struct Swept {
    /// The rows beside those that are removed, the nearest first.
    pub rows: Vec<SweptRow>,
    /// Those that are removed and hang on others that are, or on one of these.
    pub hanging: BTreeSet<(String, Key)>,
    /// Some removed row hangs itself on one of these: where the relations are, none of them can go first.
    pub circular: bool,
}

/// A row that the removal of others takes along.
#[derive(Clone, Debug)]
pub struct SweptRow {
    /// Its table.
    pub table: Arc<Table>,
    /// Its key.
    pub key: Key,
    /// What happens to it.
    pub fate: Fate,
}

/// What happens to a row when one that it points at goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It goes as well.
    Removed,
    /// These columns of it become NULL.
    Cleared(BTreeSet<usize>),
    /// Some columns of it get their default.
    Defaulted,
}

impl Legacy {
    /// What the removal of these rows would take along. `None`: more than `rows_max` rows.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn swept_along(
        &self,
        removed: &[(Arc<Table>, Key)],
        rows_max: usize,
    ) -> Result<Option<Swept>, Fault> {
        let mut sweep = Sweep::of(removed);
        let mut going = removed.to_vec();
        let mut first = true;
        while !going.is_empty() {
            let found = self.hanging_on(&going, rows_max).await?;
            going = sweep.take(found, first);
            first = false;
            if sweep.swept.rows.len() > rows_max {
                return Ok(None);
            }
        }
        Ok(Some(sweep.swept))
    }

    /// Whether any row points at one of these through a foreign key that `counts`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn is_pointed_at(
        &self,
        parent: &Arc<Table>,
        keys: &[Key],
        counts: impl Fn(&Reference) -> bool,
    ) -> Result<bool, Fault> {
        let schema = self.schema();
        let parents: Vec<Row> = self.rows(parent, keys).await?.into_values().collect();
        for (child, reference) in pointing_at(&schema, parent, counts) {
            let filter = referencing(reference, &parents);
            if !self.keys_matching(child, &filter, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One level: the rows that reference these with an action on delete.
    async fn hanging_on(
        &self,
        rows: &[(Arc<Table>, Key)],
        rows_max: usize,
    ) -> Result<Vec<SweptRow>, Fault> {
        let schema = self.schema();
        let mut found = Vec::new();
        for parent in schema.tables.values() {
            let keys: Vec<Key> = rows
                .iter()
                .filter(|(table, _)| table.name == parent.name)
                .map(|(_, key)| key.clone())
                .collect();
            let acting = pointing_at(&schema, parent, acts);
            if keys.is_empty() || acting.is_empty() {
                continue;
            }
            let parents: Vec<Row> = self.rows(parent, &keys).await?.into_values().collect();
            for (child, reference) in acting {
                let filter = referencing(reference, &parents);
                let limit = rows_max as u64 + 1;
                let keys = self.keys_matching(child, &filter, limit).await?;
                let fate = fate(reference);
                found.extend(keys.into_iter().map(|key| SweptRow {
                    table: Arc::clone(child),
                    key,
                    fate: fate.clone(),
                }));
            }
        }
        Ok(found)
    }
}

/// The closure while it grows.
struct Sweep {
    removed: BTreeSet<(String, Key)>,
    places: HashMap<(String, Key), usize>,
    swept: Swept,
}

impl Sweep {
    fn of(removed: &[(Arc<Table>, Key)]) -> Self {
        let named = removed.iter();
        Self {
            removed: named
                .map(|(table, key)| (table.name.clone(), key.clone()))
                .collect(),
            places: HashMap::new(),
            swept: Swept::default(),
        }
    }

    /// Takes what hangs on the last level; the rows that go with it are the next.
    fn take(&mut self, found: Vec<SweptRow>, first: bool) -> Vec<(Arc<Table>, Key)> {
        let mut going = Vec::new();
        for one in found {
            let name = (one.table.name.clone(), one.key.clone());
            if self.removed.contains(&name) {
                self.swept.circular |= !first;
                self.swept.hanging.insert(name);
                continue;
            }
            let removed = one.fate == Fate::Removed;
            let row = (Arc::clone(&one.table), one.key.clone());
            let newly = match self.places.get(&name) {
                Some(&place) => {
                    let fate = &mut self.swept.rows[place].fate;
                    let before = std::mem::replace(fate, Fate::Removed);
                    let newly = removed && before != Fate::Removed;
                    *fate = before.joined(one.fate);
                    newly
                }
                None => {
                    self.places.insert(name, self.swept.rows.len());
                    self.swept.rows.push(one);
                    removed
                }
            };
            if newly {
                going.push(row);
            }
        }
        going
    }
}

impl Fate {
    /// What happens to a row that two relations act on.
    fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Removed, _) | (_, Self::Removed) => Self::Removed,
            (Self::Defaulted, _) | (_, Self::Defaulted) => Self::Defaulted,
            (Self::Cleared(mut these), Self::Cleared(those)) => {
                these.extend(those);
                Self::Cleared(these)
            }
        }
    }
}

/// What a foreign key that acts does to a row.
fn fate(reference: &Reference) -> Fate {
    match reference.on_delete {
        OnChange::Cascade => Fate::Removed,
        OnChange::SetNull => Fate::Cleared(reference.clears.iter().copied().collect()),
        // One that refuses was filtered out before.
        OnChange::SetDefault | OnChange::Refuse => Fate::Defaulted,
    }
}

/// Whether a foreign key does something to its rows when the row they point at goes.
fn acts(reference: &Reference) -> bool {
    reference.on_delete != OnChange::Refuse
}

/// The foreign keys that point at `parent` and that `counts`, each with its table.
fn pointing_at<'a>(
    schema: &'a Schema,
    parent: &Table,
    counts: impl Fn(&Reference) -> bool,
) -> Vec<(&'a Arc<Table>, &'a Reference)> {
    let mut pointing = Vec::new();
    for child in schema.tables.values() {
        let references = child.references.iter();
        let counting =
            references.filter(|reference| reference.table == parent.name && counts(reference));
        pointing.extend(counting.map(|reference| (child, reference)));
    }
    pointing
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::fixture::schema;

    fn row(key: &str, fate: Fate) -> SweptRow {
        let table = schema().table("items").expect("a table").clone();
        SweptRow {
            table,
            key: Key(key.to_owned()),
            fate,
        }
    }

    fn cleared(column: usize) -> Fate {
        Fate::Cleared(BTreeSet::from([column]))
    }

    fn sweep() -> Sweep {
        let root = row("root", Fate::Removed);
        Sweep::of(&[(root.table, root.key)])
    }

    fn keys(going: &[(Arc<Table>, Key)]) -> Vec<&str> {
        going.iter().map(|(_, key)| key.0.as_str()).collect()
    }

    #[test]
    fn a_row_that_is_cleared_by_one_relation_and_removed_by_another_goes() {
        let mut sweep = sweep();
        let going = sweep.take(vec![row("a", cleared(1)), row("b", Fate::Removed)], true);
        assert_eq!(keys(&going), ["b"]);
        let going = sweep.take(vec![row("a", Fate::Removed)], false);
        assert_eq!(keys(&going), ["a"], "what hangs on it goes too");
        let going = sweep.take(vec![row("a", cleared(1)), row("b", Fate::Removed)], false);
        assert!(going.is_empty(), "each row goes once");
        assert!(sweep.swept.rows.iter().all(|row| row.fate == Fate::Removed));
    }

    #[test]
    fn two_relations_clear_the_columns_of_both() {
        let mut sweep = sweep();
        sweep.take(vec![row("a", cleared(0)), row("a", cleared(1))], true);
        assert_eq!(sweep.swept.rows.len(), 1);
        assert_eq!(sweep.swept.rows[0].fate, Fate::Cleared([0, 1].into()));
    }

    #[test]
    fn a_removed_row_that_hangs_on_what_it_takes_along_makes_a_circle() {
        let mut sweep = sweep();
        sweep.take(
            vec![row("root", Fate::Removed), row("a", Fate::Removed)],
            true,
        );
        assert!(
            !sweep.swept.circular,
            "it points at itself, or at another root"
        );
        assert_eq!(sweep.swept.hanging.len(), 1);
        sweep.take(vec![row("root", cleared(1))], false);
        assert!(sweep.swept.circular);
        assert_eq!(sweep.swept.rows.len(), 1);
    }
}
