//! Rechecking many rows of one table at a time.
//!
//! A side that was never filled differs in every row, and a recheck takes its time: each look waits first. So rows
//! look together, and each is judged for itself.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::Comparer;
use super::recheck::{Checked, Look, ROW_LOOKS_MIN, Watched, one_row};
use crate::compare::{Difference, DifferenceKind, row_diff};
use crate::contract::{Row, written_rows};
use crate::journal;
use crate::schema::{Filter, Read, Table};
use crate::stage::Backend;

/// Rows in one look.
const ROWS_AT_ONCE: usize = 500;

/// Rows of one side by what they are matched by.
pub(super) type Rows = HashMap<String, Row>;

impl Comparer {
    /// Holds rows that are suspect against the other side, as long as it takes; the results in order. What is
    /// confirmed is written down.
    pub async fn check_rows(&self, table: &Arc<Table>, keys: &[Vec<Value>]) -> Vec<Checked> {
        let options = self.options.load_full();
        let looks = options.recheck_max.max(ROW_LOOKS_MIN);
        let mut watched: Vec<Watched> = keys
            .iter()
            .map(|key| Watched::new(one_row(DifferenceKind::Field, key.clone(), Vec::new())))
            .collect();
        let mut results = vec![None; keys.len()];
        for _ in 0..looks {
            let open: Vec<usize> = (0..keys.len())
                .filter(|at| results[*at].is_none())
                .collect();
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(options.recheck_delay).await;
            let at_once = self.storage.keys_per_select(table.key.len());
            for places in open.chunks(at_once.min(ROWS_AT_ONCE)) {
                let looked_at: Vec<_> = places.iter().map(|at| keys[*at].clone()).collect();
                let looks = self.look_at_rows(table, &looked_at).await;
                for (at, look) in places.iter().zip(looks) {
                    results[*at] = watched[*at].see(look);
                    if matches!(results[*at], Some(Checked::Confirmed(_))) {
                        self.confirm(table, watched[*at].difference()).await;
                    }
                }
            }
        }
        let ended = results.into_iter().zip(&watched);
        ended
            .map(|(result, watched)| result.or(watched.ended()).unwrap_or(Checked::Unread))
            .collect()
    }

    /// One look at each, in the order of every look: the authority, the journal, the secondary, the authority
    /// again.
    async fn look_at_rows(&self, table: &Arc<Table>, keys: &[Vec<Value>]) -> Vec<Look> {
        let looks = self.try_look_at_rows(table, keys).await;
        looks.unwrap_or_else(|| keys.iter().map(|_| Look::Unread).collect())
    }

    /// None when a side did not answer.
    async fn try_look_at_rows(&self, table: &Arc<Table>, keys: &[Vec<Value>]) -> Option<Vec<Look>> {
        let snapshot = self.control.snapshot();
        let authority = snapshot.stage.authority();
        let read = Read::whole_rows(table, Filter::Keys(keys.to_vec()), None);
        let before = self.rows_of(authority, &read).await?;
        let canonical = self.legacy.canonical_keys(table, keys).await.ok()?;
        let owed = journal::owed_among(self.legacy.db(), &table.name, &canonical);
        let owed = owed.await.ok()?;
        let under_removal = self.under_removal(authority, table, &before).await?;
        let secondary = self.rows_of(authority.other(), &read).await?;
        let after = self.rows_of(authority, &read).await?;
        let moved = self.control.snapshot().epoch != snapshot.epoch;
        let looks = keys.iter().zip(canonical).map(|(key, canonical)| {
            let identity = table.key_identity(key);
            let held = before.get(&identity);
            let Some(difference) = difference(table, key, held, secondary.get(&identity)) else {
                return match owed.contains(&canonical) {
                    true => Look::Moving,
                    false => Look::Same,
                };
            };
            let waits = owed.contains(&canonical) || under_removal.contains(&identity);
            if waits || moved || after.get(&identity) != held {
                Look::Moving
            } else {
                Look::Differs(difference)
            }
        });
        Some(looks.collect())
    }

    /// A side's rows; none when it did not answer, or with something else.
    pub(super) async fn rows_of(&self, side: Backend, read: &Read) -> Option<Rows> {
        let reply = self.read_side(side, read).await?;
        let rows = written_rows(reply.as_json()).ok()?;
        let table = &read.table;
        rows.into_iter()
            .map(|row| Some((table.key_identity(&table.key_of(&row)?), row)))
            .collect()
    }
}

/// How the two rows of a key differ.
fn difference(
    table: &Table,
    key: &[Value],
    authority: Option<&Row>,
    secondary: Option<&Row>,
) -> Option<Difference> {
    let (kind, fields) = match (authority, secondary) {
        (None, None) => return None,
        (Some(_), None) => (DifferenceKind::Missing, Vec::new()),
        (None, Some(_)) => (DifferenceKind::Extra, Vec::new()),
        (Some(authority), Some(secondary)) => {
            let diff = row_diff(table, authority, secondary);
            (diff.kind?, diff.fields)
        }
    };
    Some(one_row(kind, key.to_vec(), fields))
}
