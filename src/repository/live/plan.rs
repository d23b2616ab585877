//! What a live write will touch: every key, resolved before anything is sent.
//!
//! Predicates are resolved on legacy, which holds every acknowledged write of `live`; missing integer keys
//! come from legacy's sequence, so that a rollback finds them taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Number, Value};

use super::super::errors;
use super::super::write::{Order, Turn};
use super::Repository;
use crate::contract::{Key, Reply, Row};
use crate::control::Snapshot;
use crate::journal::record_done;
use crate::schema::{Change, Filter, Step, Table, Write};
use crate::sql::Fault;
use crate::stage::Backend;

/// A write with every key known.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The write as it goes to storage: keys filled in, predicates narrowed to the resolved keys.
    pub(super) write: Write,
    /// Every key, by table, without repeats.
    pub(super) keys: Vec<(String, Key)>,
    /// The keys of each step, in step order (none for reads).
    pub(super) steps: Vec<Vec<Key>>,
    /// The time that soft deletes set.
    pub(super) deleted_at: String,
}

/// Rows of legacy by table and key.
pub(super) type Before = HashMap<(String, Key), Row>;

impl Plan {
    /// Whether storage must do more than one row at once.
    pub(super) fn needs_transaction(&self) -> bool {
        self.write.transaction || self.keys.len() > 1
    }
}

impl Repository {
    /// Resolves keys. `Err` is the turn's end.
    pub(super) async fn plan(&self, order: &Order) -> Result<Plan, Turn> {
        let mut plan = Plan {
            write: order.write.clone(),
            keys: Vec::new(),
            steps: Vec::new(),
            deleted_at: crate::clock::rfc3339_now(),
        };
        for step in &mut plan.write.steps {
            let keys = match step {
                Step::Read(_) => Vec::new(),
                Step::Change(change) => self.resolve(change, order).await?,
            };
            if let Step::Change(change) = step {
                for key in &keys {
                    let named = (change.table().name.clone(), key.clone());
                    if !plan.keys.contains(&named) {
                        plan.keys.push(named);
                    }
                }
            }
            plan.steps.push(keys);
        }
        Ok(plan)
    }

    async fn resolve(&self, change: &mut Change, order: &Order) -> Result<Vec<Key>, Turn> {
        match change {
            Change::Insert { table, rows, .. } => {
                self.fill_keys(table, rows)
                    .await
                    .map_err(|fault| self.blocked(fault, order))?;
                let values = rows
                    .iter()
                    .map(|row| table.key_of(row))
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| refused(errors::key_required(&table.name)))?;
                self.legacy
                    .canonical_keys(table, &values)
                    .await
                    .map_err(|fault| self.blocked(fault, order))
            }
            Change::Update {
                table, filter, set, ..
            } => {
                if table
                    .key_columns()
                    .any(|column| set.contains_key(&column.name))
                {
                    return Err(refused(errors::unsupported(
                        "a primary key cannot be changed in this stage: insert the new row and delete the old one",
                    )));
                }
                self.narrow(table, filter, order).await
            }
            Change::SoftDelete { table, filter, .. } => self.narrow(table, filter, order).await,
            Change::Delete { table, filter, .. } => {
                let keys = self.narrow(table, filter, order).await?;
                self.refuse_cascade(table, &keys, order).await?;
                Ok(keys)
            }
        }
    }

    /// Finds the keys that match, and narrows the filter to them: the original predicate stays, so a row
    /// that storage sees otherwise is not touched.
    async fn narrow(
        &self,
        table: &Arc<Table>,
        filter: &mut Filter,
        order: &Order,
    ) -> Result<Vec<Key>, Turn> {
        let limit = self.options.load().limits.rows_max as u64;
        let keys = self
            .legacy
            .keys_matching(table, filter, limit + 1)
            .await
            .map_err(|fault| self.blocked(fault, order))?;
        if keys.len() as u64 > limit {
            return Err(refused(errors::too_many_rows(limit)));
        }
        let original = std::mem::replace(filter, Filter::All(Vec::new()));
        *filter = Filter::All(vec![original, Filter::Keys(values_of(&keys))]);
        Ok(keys)
    }

    /// Missing integer keys come from legacy's sequence.
    async fn fill_keys(&self, table: &Table, rows: &mut [Row]) -> Result<(), Fault> {
        for column in table.key_columns() {
            let missing = rows
                .iter()
                .filter(|row| !row.contains_key(&column.name))
                .count();
            let (Some(sequence), true) = (&column.sequence, missing > 0) else {
                continue;
            };
            let mut values = self
                .legacy
                .next_values(sequence, u32::try_from(missing).unwrap_or(u32::MAX))
                .await?
                .into_iter();
            for row in rows
                .iter_mut()
                .filter(|row| !row.contains_key(&column.name))
            {
                if let Some(value) = values.next() {
                    row.insert(column.name.clone(), Value::Number(Number::from(value)));
                }
            }
        }
        Ok(())
    }

    /// What storage would cascade is not in its reply, so it could not be applied to legacy.
    async fn refuse_cascade(
        &self,
        table: &Arc<Table>,
        keys: &[Key],
        order: &Order,
    ) -> Result<(), Turn> {
        let removed: Vec<_> = keys
            .iter()
            .map(|key| (Arc::clone(table), key.clone()))
            .collect();
        let swept = self.legacy.swept_along(&removed, 1).await;
        let swept = swept.map_err(|fault| self.blocked(fault, order))?;
        let first = swept.as_deref().map(<[_]>::first);
        match first {
            Some(None) => Ok(()),
            Some(Some(_)) | None => Err(refused(errors::unsupported(
                "rows of other tables reference this row and would be changed with it: delete them first in this stage",
            ))),
        }
    }

    /// Legacy's rows of the keys, to hold storage's reply against.
    pub(super) async fn rows_before(&self, plan: &Plan) -> Result<Before, Fault> {
        let mut before = Before::new();
        for (step, keys) in plan.write.steps.iter().zip(&plan.steps) {
            let Step::Change(change) = step else { continue };
            if matches!(change, Change::Insert { upsert: false, .. }) || keys.is_empty() {
                continue;
            }
            for (key, row) in self.legacy.rows(change.table(), keys).await? {
                before.insert((change.table().name.clone(), key), row);
            }
        }
        Ok(before)
    }

    /// A write that matches nothing still has an answer to remember.
    pub(super) async fn write_nothing(
        &self,
        snapshot: &Snapshot,
        order: &Order,
        plan: &Plan,
    ) -> Turn {
        let replies: Vec<&str> = plan
            .write
            .changes()
            .map(|change| if change.is_single() { "null" } else { "[]" })
            .collect();
        let json = match (plan.write.transaction, replies.as_slice()) {
            (false, [only]) => (*only).to_owned(),
            _ => format!("[{}]", replies.join(",")),
        };
        let recorded = async {
            let mut tx = self.legacy.db().begin().await?;
            let fresh =
                record_done(&mut tx, order.op_id, &order.digest, snapshot.epoch, &json).await?;
            crate::journal::gate(&mut tx, snapshot.epoch).await?;
            tx.commit().await?;
            Ok::<bool, Fault>(fresh)
        };
        match recorded.await {
            Ok(true) => Turn::Done(Ok(Reply::from_json(json)), Backend::Legacy, Duration::ZERO),
            Ok(false) => Turn::InDoubt,
            Err(fault) if fault.is_stale_epoch() => Turn::Again,
            Err(fault) => self.blocked(fault, order),
        }
    }

    /// The answer of a write that was found out to have taken effect: its rows as they are now.
    pub(in crate::repository) async fn rows_now(&self, order: &Order) -> Result<Reply, Turn> {
        let plan = self.plan(order).await?;
        let rows = self
            .rows_of(&plan)
            .await
            .map_err(|fault| self.blocked(fault, order))?;
        let single = plan.write.changes().next().is_some_and(Change::is_single);
        let value = match (plan.write.transaction, single) {
            (false, true) => rows.into_iter().next().map_or(Value::Null, Value::Object),
            _ => Value::Array(rows.into_iter().map(Value::Object).collect()),
        };
        Ok(Reply::from_value(&value))
    }

    async fn rows_of(&self, plan: &Plan) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        for (step, keys) in plan.write.steps.iter().zip(&plan.steps) {
            let Step::Change(change) = step else { continue };
            let mut found = self.legacy.rows(change.table(), keys).await?;
            rows.extend(keys.iter().filter_map(|key| found.remove(key)));
        }
        Ok(rows)
    }
}

fn refused(error: crate::contract::Error) -> Turn {
    Turn::Done(Err(error), Backend::Legacy, Duration::ZERO)
}

/// The column values that a canonical key stands for.
pub(super) fn values_of(keys: &[Key]) -> Vec<Vec<Value>> {
    keys.iter()
        .filter_map(|key| serde_json::from_str(&key.0).ok())
        .collect()
}
