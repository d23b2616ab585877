//! Rows that are away for a moment because of a row that they hang on.
//!
//! A removal in storage takes along, or changes, what refers to the row there. Where the row came back in legacy
//! meanwhile, what refers to it is owed again after the removal, which is settled after that. In between nothing is owed
//! of a row that storage lacks, but the removal is open.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Comparer;
use super::recheck::first_key;
use super::rows::Rows;
use crate::compare::Difference;
use crate::contract::Row;
use crate::journal;
use crate::schema::{Filter, Read, References, Relation, Table};
use crate::stage::Backend;

/// How far up references are followed.
const HEIGHT_MAX: usize = 16;

/// Rows, each with what the row is matched by for whose sake it is looked at.
type Reached = Vec<(String, Row)>;

impl Comparer {
    /// Those of these rows of a side that hang on a row, however far up, of which a removal may be on its way. None when
    /// the side did not answer.
    pub(super) async fn under_removal(
        &self,
        side: Backend,
        table: &Arc<Table>,
        rows: &Rows,
    ) -> Option<HashSet<String>> {
        let schema = self.legacy.schema();
        let mut found = HashSet::new();
        let first = rows.iter().map(|(name, row)| (name.clone(), row.clone()));
        let mut level: Vec<(Arc<Table>, Reached)> = vec![(Arc::clone(table), first.collect())];
        for _ in 0..HEIGHT_MAX {
            let mut above = Vec::new();
            for (table, rows) in level {
                for relation in schema.relations(&table) {
                    let parents = self.parents_of(side, &relation, &rows).await?;
                    found.extend(self.under_way(&relation.parent, &parents).await?);
                    let on = parents
                        .into_iter()
                        .filter(|(name, _)| !found.contains(name));
                    above.push((relation.parent, on.collect::<Reached>()));
                }
            }
            level = above;
            level.retain(|(_, rows)| !rows.is_empty());
            if level.is_empty() {
                break;
            }
        }
        Some(found)
    }

    /// Whether the row that a suspect tells the key of, as a side has it, is one of those.
    pub(super) async fn is_under_removal(
        &self,
        side: Backend,
        table: &Arc<Table>,
        suspect: &Difference,
    ) -> Option<bool> {
        let key = first_key(suspect).filter(|_| !table.references.is_empty());
        let Some(key) = key else {
            return Some(false);
        };
        let read = Read::whole_rows(table, Filter::Keys(vec![key.to_vec()]), None);
        let rows = self.rows_of(side, &read).await?;
        let found = self.under_removal(side, table, &rows).await?;
        Some(!found.is_empty())
    }

    /// For whose sake those of these rows were looked at of which a removal may be on its way.
    async fn under_way(&self, table: &Table, rows: &Reached) -> Option<Vec<String>> {
        let keys: Option<Vec<_>> = rows.iter().map(|(_, row)| table.key_of(row)).collect();
        let keys = self.legacy.canonical_keys(table, &keys?).await.ok()?;
        let removing = journal::removing_among(self.legacy.db(), &table.name, &keys);
        let removing = removing.await.ok()?;
        let named = rows.iter().map(|(name, _)| name).zip(&keys);
        let those = named.filter(|(_, key)| removing.contains(key));
        Some(those.map(|(name, _)| name.clone()).collect())
    }

    /// The rows that these refer to.
    async fn parents_of(
        &self,
        side: Backend,
        relation: &Relation,
        rows: &Reached,
    ) -> Option<Reached> {
        let mut references = References::new();
        let mut referring: Vec<(&String, String)> = Vec::new();
        for (name, row) in rows {
            referring.extend(relation.note(row, &mut references).map(|led| (name, led)));
        }
        let values: Vec<_> = references.into_values().collect();
        let mut parents = HashMap::new();
        let at_once = self.storage.keys_per_select(relation.target.len());
        for values in values.chunks(at_once) {
            let filter = relation.any_of(values);
            let read = Read::whole_rows(&relation.parent, filter, None);
            for row in self.rows_of(side, &read).await?.into_values() {
                parents.extend(relation.parent_identity(&row).map(|name| (name, row)));
            }
        }
        let led = referring
            .into_iter()
            .filter_map(|(name, identity)| Some((name.clone(), parents.get(&identity)?.clone())));
        Some(led.collect())
    }
}
